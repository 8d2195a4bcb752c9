// Mistakes that the emulator has to catch: as an error, as a wrong result, or as a report of a sanitizer.
#include "device.cuh"

// Reads what another thread may not have written yet.
KERNEL(missing_barrier, 64, int* out) {
  __shared__ int values[64];
  int i = threadIdx.x;
  values[i] = -1;
  __syncthreads();
  values[i] = i;
  out[i] = values[(i + 17) % 64];
}

// Waits until two copies are pending where one may be.
KERNEL(shallow_wait, 32, const float* in, float* out) {
  __shared__ __align__(16) float ring[2][kWarp * 4];
  int lane = threadIdx.x;
  for (int i = 0; i < 4; i++) ring[0][lane * 4 + i] = ring[1][lane * 4 + i] = -1.0f;
  __syncwarp();
  for (int stage = 0; stage < 2; stage++) {
    cp_async16(&ring[stage][lane * 4], in + (stage * kWarp + lane) * 4);
    cp_async_commit();
  }
  cp_async_wait<2>();
  __syncwarp();
  out[lane] = ring[0][lane * 4];
  cp_async_wait<0>();
}

KERNEL(copy_without_wait, 32, const float* in, float* out) {
  __shared__ __align__(16) float values[kWarp * 4];
  cp_async16(&values[threadIdx.x * 4], in + threadIdx.x * 4);
  cp_async_commit();
  out[threadIdx.x] = 0;
}

KERNEL(misaligned_copy, 32, const float* in, float* out) {
  __shared__ __align__(16) float values[kWarp * 4];
  if (threadIdx.x == 0) cp_async16(&values[1], in);
  cp_async_commit();
  cp_async_wait<0>();
  out[threadIdx.x] = 0;
}

KERNEL(divergent_barrier, 64, int* out) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  out[threadIdx.x] = 1;
}

KERNEL(barrier_after_return, 64, int* out) {
  if (threadIdx.x == 5) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

KERNEL(divergent_warp, 32, int* out) {
  int lane = threadIdx.x;
  if (lane % 2)
    out[lane] = __shfl_xor_sync(kAllLanes, lane, 1);
  else
    out[lane] = __shfl_xor_sync(kAllLanes, lane, 3);
}

KERNEL(lane_outside_mask, 32, int* out) { out[threadIdx.x] = int(__ballot_sync(0x0000ffffu, 1)); }

// The mask of half a warp, but a source in the other half.
KERNEL(absent_source, 32, int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0x0000ffffu, int(threadIdx.x), 20);
}

KERNEL(different_masks, 32, int* out) {
  out[threadIdx.x] = int(__ballot_sync(threadIdx.x < 16 ? 0xffffffffu : 0xffff0001u, 1));
}

// Half of a warp multiplies matrices.
KERNEL(half_a_tensor, 32, float* out) {
  if (threadIdx.x >= 16) return;
  unsigned a[4] = {}, b[2] = {};
  float c[4] = {};
  mma_bf16_16816(c, a, b);
  out[threadIdx.x] = c[0];
}

// A lane waits for others that wait at the block's barrier.
KERNEL(deadlock, 32, int* out) {
  if (threadIdx.x == 0)
    __syncwarp();
  else
    __syncthreads();
  out[threadIdx.x] = 1;
}

KERNEL(spins_for_ever, 32, int* out) {
  if (threadIdx.x == 0)
    while (load_acquire(out) == 0) spin_pause();
}

// For address sanitizers: one value past the end of a buffer, and of the launch's shared memory.
KERNEL(write_past_the_end, 32, int* out, int n) {
  if (threadIdx.x == 0) out[n] = 1;
}
KERNEL(read_past_shared, 32, int* out, int n) {
  if (threadIdx.x == 0) out[0] = reinterpret_cast<int*>(dynamic_shared())[n];
}
// For undefined-behaviour sanitizers.
KERNEL(index_past_array, 32, int* out, int n) {
  __shared__ int values[4];
  values[threadIdx.x % 4] = 0;
  out[0] = values[n];
}
