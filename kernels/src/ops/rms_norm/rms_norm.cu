// RMSNorm, with the residual added before: s = x + residual (rounded to bf16 and kept), y = bf16(s / rms(s)) * gamma.
// The two roundings are those of the reference implementation of the checkpoints we load.
//
// Mapping: a block of 256 threads a row; a thread holds `Chunks` vectors of eight values, so a row is read once.
// Moves: 2 n (x, y) or 8 n bytes (with residual: x, y, residual in and out) a row, gamma from the cache.
// Roofline: memory; at batch 1 (n = 2048, 16 KB) it is all latency, and the launch is what costs.
// Not measured yet.
#include "device.cuh"

constexpr int kThreads = 256;

template <int Chunks>
__device__ void rms_norm_row(const bf16* x, bf16* residual, const bf16* gamma, bf16* y, int n, float eps) {
  __shared__ float partial[kWarp];
  long long row = (long long)blockIdx.x * n;
  float values[Chunks][8];
  float squares = 0;
#pragma unroll
  for (int chunk = 0; chunk < Chunks; chunk++) {
    int i = (chunk * kThreads + threadIdx.x) * 8;
    if (i >= n) continue;
    load8(values[chunk], x + row + i);
    if (residual) {
      float before[8];
      load8(before, residual + row + i);
#pragma unroll
      for (int j = 0; j < 8; j++) values[chunk][j] = rounded_to_bf16(values[chunk][j] + before[j]);
      store8(residual + row + i, values[chunk]);
    }
#pragma unroll
    for (int j = 0; j < 8; j++) squares += values[chunk][j] * values[chunk][j];
  }
  float scale = rsqrtf(block_sum(squares, partial) / n + eps);
#pragma unroll
  for (int chunk = 0; chunk < Chunks; chunk++) {
    int i = (chunk * kThreads + threadIdx.x) * 8;
    if (i >= n) continue;
    float weight[8];
    load8(weight, gamma + i);
#pragma unroll
    for (int j = 0; j < 8; j++) values[chunk][j] = rounded_to_bf16(values[chunk][j] * scale) * weight[j];
    store8(y + row + i, values[chunk]);
  }
}

KERNEL(rms_norm_2048, kThreads, const bf16* x, bf16* residual, const bf16* gamma, bf16* y, int n, float eps) {
  rms_norm_row<1>(x, residual, gamma, y, n, eps);
}
KERNEL(rms_norm_6144, kThreads, const bf16* x, bf16* residual, const bf16* gamma, bf16* y, int n, float eps) {
  rms_norm_row<3>(x, residual, gamma, y, n, eps);
}
