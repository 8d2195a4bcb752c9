// SnakeBeta: y = x + sin(x frequency_c)^2 scale_c.
//
// Mapping: a thread eight channels of a row. Moves 4 bytes a value, the parameters from the cache. Roofline: memory.
// Not measured yet.
#include "device.cuh"

constexpr int kThreads = 256;

// parameters: [channels] of (frequency over pi, scale): sinpif reduces its argument exactly.
KERNEL(snake_beta, kThreads, const bf16* x, const float2* parameters, bf16* y, int rows, int channels) {
  long long at = ((long long)blockIdx.x * kThreads + threadIdx.x) * 8;
  if (at >= (long long)rows * channels) return;
  int c = int(at % channels);
  float value[8];
  load8(value, x + at);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float2 p = parameters[c + i];
    float wave = sinpif(value[i] * p.x);
    value[i] += wave * wave * p.y;
  }
  store8(y + at, value);
}
