// LayerNorm: y = (x - mean) / sqrt(variance + eps) * gamma + beta, row by row, rounded once.
//
// Mapping: a block of 256 threads a row; a thread holds `Chunks` vectors of eight values, so a row is read once and the
// variance is that of the differences from the mean.
// Moves: 4 n bytes a row, gamma and beta from the cache. Roofline: memory; a few rows are all latency.
// Not measured yet.
#include "device.cuh"

constexpr int kThreads = 256;

template <int Chunks>
__device__ void layer_norm_row(const bf16* x, const bf16* gamma, const bf16* beta, bf16* y, int n, float eps) {
  __shared__ float partial[2][kWarp];
  long long row = (long long)blockIdx.x * n;
  float values[Chunks][8];
  float sum = 0;
#pragma unroll
  for (int chunk = 0; chunk < Chunks; chunk++) {
    int i = (chunk * kThreads + threadIdx.x) * 8;
    if (i >= n) continue;
    load8(values[chunk], x + row + i);
#pragma unroll
    for (int j = 0; j < 8; j++) sum += values[chunk][j];
  }
  float mean = block_sum(sum, partial[0]) / n;
  float squares = 0;
#pragma unroll
  for (int chunk = 0; chunk < Chunks; chunk++) {
    if ((chunk * kThreads + threadIdx.x) * 8 >= n) continue;
#pragma unroll
    for (int j = 0; j < 8; j++) {
      values[chunk][j] -= mean;
      squares += values[chunk][j] * values[chunk][j];
    }
  }
  float scale = rsqrtf(block_sum(squares, partial[1]) / n + eps);
#pragma unroll
  for (int chunk = 0; chunk < Chunks; chunk++) {
    int i = (chunk * kThreads + threadIdx.x) * 8;
    if (i >= n) continue;
    float weight[8], offset[8];
    load8(weight, gamma + i);
    load8(offset, beta + i);
#pragma unroll
    for (int j = 0; j < 8; j++) values[chunk][j] = values[chunk][j] * scale * weight[j] + offset[j];
    store8(y + row + i, values[chunk]);
  }
}

KERNEL(layer_norm_2048, kThreads, const bf16* x, const bf16* gamma, const bf16* beta, bf16* y, int n, float eps) {
  layer_norm_row<1>(x, gamma, beta, y, n, eps);
}
KERNEL(layer_norm_6144, kThreads, const bf16* x, const bf16* gamma, const bf16* beta, bf16* y, int n, float eps) {
  layer_norm_row<3>(x, gamma, beta, y, n, eps);
}
