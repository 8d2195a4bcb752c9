// y[i] = scale * sum_g table[offsets[g] + ids[i, g]] + addend[i]: rows of a table, or the sum or mean of one row of each of several
// tables that lie behind each other (codebooks). An id outside of its table gives zeros. The addend may be null.
//
// Mapping: a block of 256 threads a token, eight values a thread. Moves 2 h (g + 1) bytes a token.
// Roofline: memory; a frame's 16 rows of 1024 values are 34 KB, so latency.
// Not measured yet.
#include "device.cuh"

constexpr int kThreads = 256;

// sizes[g]: rows of table g. ids[i * token_stride + g * table_stride]: the row of table g for token i.
KERNEL(embedding_sum, kThreads, const int* ids, const bf16* table, const int* offsets, const int* sizes,
       const bf16* addend, bf16* y, int tables, int token_stride, int table_stride, int h, float scale) {
  const int* mine = ids + (long long)blockIdx.x * token_stride;
  for (int at = threadIdx.x * 8; at < h; at += kThreads * 8) {
    float sum[8] = {};
    for (int g = 0; g < tables; g++) {
      int id = mine[(long long)g * table_stride];
      if (id < 0 || id >= sizes[g]) continue;
      float row[8];
      load8(row, table + (long long)(offsets[g] + id) * h + at);
#pragma unroll
      for (int j = 0; j < 8; j++) sum[j] += row[j];
    }
#pragma unroll
    for (int j = 0; j < 8; j++) sum[j] *= scale;
    if (addend) {
      float row[8];
      load8(row, addend + (long long)blockIdx.x * h + at);
#pragma unroll
      for (int j = 0; j < 8; j++) sum[j] += row[j];
    }
    store8(y + (long long)blockIdx.x * h + at, sum);
  }
}
