// What the emulator's library exports.
#include "cuemu/launch.h"

// As `emulator::Shape` in Rust.
struct CuemuShape {
  unsigned grid[3], block[3];
  uint64_t shared_bytes, seed;
  unsigned cooperative;
};

extern "C" {

uint64_t cuemu_kernels() { return cuemu::kernels().size(); }

const char* cuemu_kernel_name(uint64_t i) { return cuemu::kernels()[i].name; }

// 0, or 1 with a message in `error`.
int cuemu_launch(const char* name, const CuemuShape* shape, void** arguments, const size_t* sizes, size_t count,
                 char* error, size_t error_bytes) {
  auto refuse = [&](const std::string& why) {
    snprintf(error, error_bytes, "%s: %s", name, why.c_str());
    return 1;
  };
  const cuemu::Kernel* kernel = nullptr;
  for (const cuemu::Kernel& one : cuemu::kernels())
    if (!strcmp(one.name, name)) kernel = &one;
  if (!kernel) return refuse("no such kernel");
  if (count != kernel->argument_sizes.size())
    return refuse(std::to_string(count) + " arguments, not " + std::to_string(kernel->argument_sizes.size()));
  for (size_t i = 0; i < count; i++)
    if (sizes[i] != kernel->argument_sizes[i])
      return refuse("argument " + std::to_string(i) + " has " + std::to_string(sizes[i]) + " bytes, not " +
                    std::to_string(kernel->argument_sizes[i]));
  uint64_t threads = uint64_t(shape->block[0]) * shape->block[1] * shape->block[2];
  if (!threads || threads > kernel->max_threads)
    return refuse("a block of " + std::to_string(threads) + " threads where the bound is " +
                  std::to_string(kernel->max_threads));
  cuemu::Grid grid;
  grid.grid = {shape->grid[0], shape->grid[1], shape->grid[2]};
  grid.block = {shape->block[0], shape->block[1], shape->block[2]};
  uint64_t blocks = uint64_t(grid.grid.x) * grid.grid.y * grid.grid.z;
  if (!blocks) return refuse("an empty grid");
  if (shape->cooperative && blocks > cuemu::kMaxCooperativeBlocks)
    return refuse("a cooperative grid of " + std::to_string(blocks) + " blocks does not fit the device");
  grid.seed = shape->seed;
  grid.shared_bytes = shape->shared_bytes;
  struct Call {
    const cuemu::Kernel* kernel;
    void** arguments;
  } call = {kernel, arguments};
  grid.argument = &call;
  grid.entry = [](void* erased) {
    auto* call = static_cast<Call*>(erased);
    call->kernel->invoke(call->kernel->function, call->arguments);
  };
  cuemu::run_grid(grid, shape->cooperative != 0);
  return grid.failed ? refuse(grid.error) : 0;
}
}
