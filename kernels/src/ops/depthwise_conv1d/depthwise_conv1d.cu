// Convolution along time, every channel by itself: y[t, c] = bias[c] + sum_j w[j, c] x[t + j, c], where x has its history in
// front. The beginning of a ConvNeXt block.
//
// Mapping: a thread eight channels of a row; neighbouring rows share what they read through the cache. Moves 4 channels
// bytes a row. Roofline: memory; eight rows of 1024 channels are 32 KB, so latency.
// Not measured yet.
#include "device.cuh"

constexpr int kThreads = 256;

KERNEL(depthwise_conv1d, kThreads, const bf16* x, const bf16* weights, const bf16* bias, bf16* y, int rows, int channels,
       int taps) {
  long long at = ((long long)blockIdx.x * kThreads + threadIdx.x) * 8;
  if (at >= (long long)rows * channels) return;
  int c = int(at % channels);
  float sum[8], value[8], weight[8];
  load8(sum, bias + c);
  for (int j = 0; j < taps; j++) {
    load8(value, x + at + (long long)j * channels);
    load8(weight, weights + (long long)j * channels + c);
#pragma unroll
    for (int i = 0; i < 8; i++) sum[i] += weight[i] * value[i];
  }
  store8(y + at, sum);
}
