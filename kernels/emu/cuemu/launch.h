// Kernels by name, and their launch with packed arguments as cuLaunchKernel takes them.
#pragma once

#include <sys/mman.h>

#include <array>
#include <cstdlib>
#include <new>
#include <thread>
#include <utility>

#include "cuda.h"

namespace cuemu {

struct Kernel {
  const char* name;
  unsigned max_threads;  // its launch bounds
  std::vector<size_t> argument_sizes;
  void (*function)();
  void (*invoke)(void (*function)(), void** arguments);
};

inline std::vector<Kernel>& kernels() {
  static std::vector<Kernel> all;
  return all;
}

template <class... A, size_t... I>
void invoke_with(void (*function)(A...), void** arguments, std::index_sequence<I...>) {
  function(*static_cast<A*>(arguments[I])...);
}

// A static one of these makes a kernel known.
struct Registration {
  template <class... A>
  Registration(const char* name, unsigned max_threads, void (*function)(A...)) {
    auto invoke = [](void (*erased)(), void** arguments) {
      invoke_with(reinterpret_cast<void (*)(A...)>(erased), arguments, std::index_sequence_for<A...>{});
    };
    kernels().push_back({name, max_threads, {sizeof(A)...}, reinterpret_cast<void (*)()>(function), invoke});
  }
};

// Blocks that may be in flight at once in a cooperative launch: each has an OS thread.
constexpr uint64_t kMaxCooperativeBlocks = 64;

// Stacks stay from launch to launch: to have the pages that a kernel touches made anew would take longer than most kernels.
struct Stacks {
  char* at = nullptr;
  size_t bytes = 0;

  ~Stacks() { drop(); }
  void drop() {
    if (at) munmap(at, bytes);
    at = nullptr;
  }
  char* of(size_t wanted) {
    if (wanted > bytes) {
      drop();
      void* made = mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (made == MAP_FAILED) throw std::bad_alloc();
      at = static_cast<char*>(made);
      bytes = wanted;
    }
    return at;
  }
};

inline Arena make_arena(const Grid& grid) {
  thread_local Stacks stacks;
  Arena arena;
  size_t threads = size_t(grid.block.x) * grid.block.y * grid.block.z;
  arena.stacks = stacks.of(threads * kStack);
  // Exactly as long as asked for, so that an address sanitizer sees what lies past it.
  void* shared = nullptr;
  if (grid.shared_bytes && posix_memalign(&shared, 128, grid.shared_bytes)) throw std::bad_alloc();
  arena.shared = static_cast<char*>(shared);
  return arena;
}

inline void drop_arena(Arena& arena) {
  free(arena.shared);
}

inline dim3 block_at(const Grid& grid, uint64_t linear) {
  return {unsigned(linear % grid.grid.x), unsigned(linear / grid.grid.x % grid.grid.y),
          unsigned(linear / (uint64_t(grid.grid.x) * grid.grid.y))};
}

// Runs every block; `grid.error` says what went wrong. Blocks run one after another, in an order that follows from the
// seed; those of a cooperative launch run at the same time.
inline void run_grid(Grid& grid, bool cooperative) {
  uint64_t blocks = uint64_t(grid.grid.x) * grid.grid.y * grid.grid.z;
  if (cooperative) {
    std::vector<std::thread> threads;
    for (uint64_t i = 0; i < blocks; i++)
      threads.emplace_back([&grid, i] {
        Arena arena = make_arena(grid);
        run_block(grid, block_at(grid, i), arena);
        drop_arena(arena);
      });
    for (std::thread& thread : threads) thread.join();
    return;
  }
  // A stride that shares no factor with the count visits every block once.
  uint64_t stride = 1, first = 0;
  if (grid.seed && blocks > 1) {
    first = grid.seed * 0x9E3779B97F4A7C15ull % blocks;
    stride = (grid.seed * 0xD1B54A32D192ED03ull >> 7) % blocks | 1;
    while (std::__gcd(stride, blocks) != 1) stride++;
  }
  Arena arena = make_arena(grid);
  for (uint64_t i = 0; i < blocks && !grid.failed; i++) run_block(grid, block_at(grid, (first + i * stride) % blocks), arena);
  drop_arena(arena);
}

}  // namespace cuemu
