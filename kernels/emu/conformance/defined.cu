// What a GPU defines, and the emulator has to do the same way. `tests.rs` of the emulator knows the results.
#include "device.cuh"

// Lanes from `keep` on return at once; the others vote with the full mask.
KERNEL(early_exit, 64, int* out, int keep) {
  int lane = threadIdx.x % kWarp;
  if (lane >= keep) return;
  unsigned votes = __ballot_sync(kAllLanes, 1);
  for (int round = 0; round < 3; round++) votes &= __ballot_sync(kAllLanes, lane % 2 == round % 2 || round == 2) | votes;
  out[threadIdx.x] = int(votes);
}

// The halves of a warp, and the quarters of its second half, sum on their own between sums of all.
KERNEL(partial_masks, 32, float* out) {
  int lane = threadIdx.x;
  float x = float(lane);
  for (int round = 0; round < 3; round++) {
    float all = warp_sum(x);
    float part = x;
    if (lane < 16) {
      for (int by = 8; by; by /= 2) part += __shfl_xor_sync(0x0000ffffu, part, by);
    } else {
      unsigned quarter = lane < 24 ? 0x00ff0000u : 0xff000000u;
      for (int by = 4; by; by /= 2) part += __shfl_xor_sync(quarter, part, by);
    }
    x = x + part + all;
  }
  out[lane] = x;
}

// Every kind of shuffle and vote; seven results a lane.
KERNEL(lanes, 32, int* out) {
  int lane = threadIdx.x;
  int* mine = out + lane * 7;
  mine[0] = __shfl_sync(kAllLanes, lane * 3, lane / 2);
  mine[1] = __shfl_xor_sync(kAllLanes, lane * 3, 5);
  mine[2] = __shfl_up_sync(kAllLanes, lane * 3, 3);
  mine[3] = __shfl_down_sync(kAllLanes, lane * 3, 3);
  mine[4] = int(__ballot_sync(kAllLanes, lane % 3 == 0));
  mine[5] = __any_sync(kAllLanes, lane == 31);
  mine[6] = __all_sync(kAllLanes, lane < 31);
}

// Reverses a block's values through shared memory, of which some is sized by the launch.
KERNEL(reverse, 256, const int* in, int* out) {
  __shared__ int fixed[256];
  int* sized = reinterpret_cast<int*>(dynamic_shared());
  int i = threadIdx.x, n = blockDim.x, base = blockIdx.x * n;
  fixed[i] = in[base + i];
  __syncthreads();
  sized[i] = fixed[n - 1 - i];
  __syncthreads();
  out[base + i] = sized[n - 1 - i] + sized[i];
}

// Threads and blocks in three dimensions add their coordinates.
KERNEL(coordinates, 64, int* sum, int* greatest) {
  int value = int(threadIdx.x + 10 * threadIdx.y + 100 * threadIdx.z + 1000 * (blockIdx.x + 10 * blockIdx.y));
  atomicAdd(sum, value);
  atomicMax(greatest, value);
}

// D = A B with A [16, 16] and B [16, 8] row-major in shared memory; B through the transposing load.
KERNEL(tensor, 32, const bf16* a, const bf16* b, float* d) {
  __shared__ __align__(16) bf16 rows[16][16];
  __shared__ __align__(16) bf16 columns[16][8];
  int lane = threadIdx.x;
  cp_async16(&rows[lane / 2][lane % 2 * 8], a + lane * 8);
  if (lane < 16) cp_async16(&columns[lane][0], b + lane * 8);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  unsigned fa[4], fb[4];
  ldmatrix_x4(fa, &rows[lane % 16][lane / 16 * 8]);
  ldmatrix_x4_trans(fb, &columns[lane % 16][0]);
  unsigned column[2] = {fb[0], fb[1]};
  float sum[4] = {};
  mma_bf16_16816(sum, fa, column);
  for (int i = 0; i < 4; i++) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}

// Three copies in flight, the last one partly zeros; each is waited for before it is read.
KERNEL(pipeline, 32, const float* in, float* out, int stages) {
  __shared__ __align__(16) float ring[3][kWarp * 4];
  int lane = threadIdx.x;
  auto start = [&](int stage) {
    bool last = stage == stages - 1;
    if (stage < stages) cp_async16(&ring[stage % 3][lane * 4], in + (stage * kWarp + lane) * 4, last ? 8 : 16);
    cp_async_commit();
  };
  start(0);
  start(1);
  for (int stage = 0; stage < stages; stage++) {
    start(stage + 2);
    cp_async_wait<2>();
    __syncwarp();
    for (int i = 0; i < 4; i++) out[(stage * kWarp + lane) * 4 + i] = ring[stage % 3][(31 - lane) * 4 + i];
    __syncwarp();
  }
  cp_async_wait<0>();
}

// Blocks that wait for each other at a barrier in global memory, `steps` times.
KERNEL(cooperative, 64, float* x, float* y, int n, int steps, int* arrived) {
  int threads = gridDim.x * blockDim.x, first = blockIdx.x * blockDim.x + threadIdx.x;
  for (int step = 0; step < steps; step++) {
    float *from = step % 2 ? y : x, *to = step % 2 ? x : y;
    for (int i = first; i < n; i += threads) to[i] = 0.5f * (from[i] + from[(i + 1) % n]);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      atomicAdd(arrived, 1);
      while (load_acquire(arrived) < int(gridDim.x) * (step + 1)) spin_pause();
    }
    __syncthreads();
  }
}
