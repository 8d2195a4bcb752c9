// y[i] = (splitmix64(seed, i) / 2^23 - 1) scale, of its upper 24 bits: weights without a checkpoint, of which any part can be
// made again on the host.
//
// Mapping: eight values a thread, one store. Moves 2 bytes a value. Roofline: memory, or about 20 integer operations a value.
// Not measured yet.
#include "device.cuh"

constexpr int kThreads = 256;

KERNEL(noise, kThreads, bf16* y, unsigned long long seed, unsigned long long eights, float scale) {
  unsigned long long eight = (unsigned long long)blockIdx.x * kThreads + threadIdx.x;
  if (eight >= eights) return;
  float values[8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    unsigned long long z = seed + (eight * 8 + i + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    values[i] = (float(unsigned(z >> 40)) * (1.0f / 8388608.0f) - 1.0f) * scale;
  }
  store8(y + eight * 8, values);
}
