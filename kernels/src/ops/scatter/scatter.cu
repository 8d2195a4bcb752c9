// y[ids[i]] = x[i], or y[ids[i]] += x[i]: rows of media among those of words, and features of the vision tower.
//
// Mapping: a block of 256 threads a row, eight values a thread. Moves 4 h (6 h) bytes a row. Roofline: memory, latency.
// Not measured yet.
#include "device.cuh"

constexpr int kThreads = 256;

// rows: those of y. ids are all different.
KERNEL(scatter, kThreads, const bf16* x, const int* ids, bf16* y, int rows, int h, int add) {
  int id = ids[blockIdx.x];
  if (id < 0 || id >= rows) return;
  for (int at = threadIdx.x * 8; at < h; at += kThreads * 8) {
    float value[8], before[8];
    bf16* to = y + (long long)id * h + at;
    load8(value, x + (long long)blockIdx.x * h + at);
    if (add) {
      load8(before, to);
#pragma unroll
      for (int i = 0; i < 8; i++) value[i] += before[i];
    }
    store8(to, value);
  }
}
