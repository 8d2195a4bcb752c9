// y[t, o] = sum_c x[t, c] w[o, c] for up to eight tokens at once, weights of eight or four bits with scales.
//
// Mapping: a warp an output; a lane takes 16 bytes of weights at a time and as many activations of every token, which come
// from the cache. Moves n k (n k / 2) bytes of weights, once for each eight tokens. Roofline: memory; decoding 16 numbers
// takes about as many instructions as multiplying them for two tokens, so that more than four tokens may be bound by
// arithmetic. Not measured yet.
#include "device.cuh"

constexpr int kThreads = 256;
constexpr int kTokens = 8;
constexpr int kGroup = 128;

// Bits of E4M3 in their places in an f32: the exponent's bias differs by 120, for subnormal numbers as well.
__device__ __forceinline__ float from_fp8(unsigned code) {
  return __uint_as_float((code & 0x80u) << 24 | (code & 0x7fu) << 20) * 1.3292279957849159e36f;
}

// Sixteen products for every token: weights w, inputs from `at` on.
__device__ __forceinline__ void accumulate(float (&sum)[kTokens], const float (&w)[16], const bf16* x, int at, int tokens,
                                           int k) {
#pragma unroll
  for (int t = 0; t < kTokens; t++) {
    if (t >= tokens) continue;
    float low[8], high[8];
    load8(low, x + (long long)t * k + at);
    load8(high, x + (long long)t * k + at + 8);
#pragma unroll
    for (int i = 0; i < 8; i++) sum[t] += w[i] * low[i] + w[i + 8] * high[i];
  }
}

__device__ __forceinline__ void finish(float (&sum)[kTokens], float scale, bf16* y, int tokens, int n) {
#pragma unroll
  for (int t = 0; t < kTokens; t++) {
    float total = warp_sum(sum[t]);
    if (t < tokens && threadIdx.x % kWarp == 0) y[(long long)t * n] = to_bf16(total * scale);
  }
}

// weights: [n, k]; scales: [n].
KERNEL(linear_fp8, kThreads, const bf16* x, const unsigned char* weights, const float* scales, bf16* y, int tokens, int n,
       int k) {
  int output = blockIdx.x * (kThreads / kWarp) + threadIdx.x / kWarp, first = blockIdx.y * kTokens;
  if (output >= n) return;
  const unsigned char* row = weights + (long long)output * k;
  x += (long long)first * k;
  tokens = min(kTokens, tokens - first);
  float sum[kTokens] = {};
  for (int at = threadIdx.x % kWarp * 16; at < k; at += kWarp * 16) {
    uint4 packed = *reinterpret_cast<const uint4*>(row + at);
    unsigned words[4] = {packed.x, packed.y, packed.z, packed.w};
    float w[16];
#pragma unroll
    for (int i = 0; i < 16; i++) w[i] = from_fp8(words[i / 4] >> (i % 4 * 8) & 0xffu);
    accumulate(sum, w, x, at, tokens, k);
  }
  finish(sum, scales[output], y + (long long)first * n + output, tokens, n);
}

// weights: [n, k / 2]; scales: [n, k / 128].
KERNEL(linear_int4, kThreads, const bf16* x, const unsigned char* weights, const float* scales, bf16* y, int tokens, int n,
       int k) {
  int output = blockIdx.x * (kThreads / kWarp) + threadIdx.x / kWarp, first = blockIdx.y * kTokens;
  if (output >= n) return;
  const unsigned char* row = weights + (long long)output * (k / 2);
  scales += (long long)output * (k / kGroup);
  x += (long long)first * k;
  tokens = min(kTokens, tokens - first);
  float sum[kTokens] = {};
  for (int at = threadIdx.x % kWarp * 32; at < k; at += kWarp * 32) {
    uint4 packed = *reinterpret_cast<const uint4*>(row + at / 2);
    unsigned words[4] = {packed.x, packed.y, packed.z, packed.w};
    float scale = scales[at / kGroup];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float w[16];
#pragma unroll
      for (int i = 0; i < 16; i++) w[i] = float(int(words[half * 2 + i / 8] >> (i % 8 * 4) & 15u) - 8) * scale;
      accumulate(sum, w, x, at + half * 16, tokens, k);
    }
  }
  finish(sum, 1.0f, y + (long long)first * n + output, tokens, n);
}
