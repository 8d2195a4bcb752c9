// y[i, o] = f(sum_c x[row(i), c] W[g, o, c] + bias[o]) + residual[i, o], for one matrix or for one of each group (experts); with two matrices
// stacked, y = silu(x Gᵀ) * (x Uᵀ).
//
// The tokens of group g are rows offsets[g] .. offsets[g + 1] of y; `rows` says which row of x each is. Without offsets
// there is one group of all tokens. Without rows, row i of x.
//
// gemm_streamed_*: a block of 8 warps for 16 outputs of a group, k split over the warps. Moves every weight of every group
// that has tokens once for each 8 (32) tokens: 2 n k bytes a group. Roofline: memory, see the table of floors in
// RESULTS.md; expected at 70 % or more of it where n / 16 times the groups fill the device twice.
// gemm_tiled_*: a block of 4 warps for 64 tokens and 64 outputs. Roofline: 2 m n k operations on the tensor cores; mma.sync
// is expected to reach about half of what wgmma can on sm_90.
// Not measured yet.
#include "gemm.cuh"

template <int Tiles, bool Gated, class Y>
__device__ void streamed_product(const bf16* x, const bf16* weights, Epilogue end, Y* y, const int* offsets,
                                 const int* rows, int tokens, int n, int k) {
  int group = blockIdx.y, output = blockIdx.x * kStreamedRows;
  int first = offsets ? offsets[group] : 0, last = offsets ? offsets[group + 1] : tokens;
  const bf16* matrix = weights + (long long)group * n * (Gated ? 2 : 1) * k + (long long)output * k;
  for (int from = first; from < last; from += 8 * Tiles) {
    auto token = [&](int i) -> const bf16* {
      if (from + i >= last) return nullptr;
      return x + (long long)(rows ? rows[from + i] : from + i) * k;
    };
    auto put = [&](int i, int row, float value) {
      if (from + i >= last) return;
      value = end.apply(value, from + i, output + row, n);
      store(y + (long long)(from + i) * n + output + row, value);
    };
    streamed<Tiles, Gated>(matrix, (long long)n * k, min(kStreamedRows, n - output), k, token, put);
  }
}

#define STREAMED(name, Tiles, Gated, Y)                                                                               \
  KERNEL(name, kStreamedThreads, const bf16* x, const bf16* weights, const bf16* bias, const bf16* residual, Y* y,    \
         const int* offsets, const int* rows, int activation, int tokens, int n, int k) {                             \
    streamed_product<Tiles, Gated>(x, weights, {bias, residual, activation}, y, offsets, rows, tokens, n, k);                                 \
  }
STREAMED(gemm_streamed_8, 1, false, bf16)
STREAMED(gemm_streamed_32, 4, false, bf16)
STREAMED(gemm_streamed_8_f32, 1, false, float)
STREAMED(gemm_streamed_32_f32, 4, false, float)
STREAMED(gemm_streamed_8_swiglu, 1, true, bf16)
STREAMED(gemm_streamed_32_swiglu, 4, true, bf16)

template <bool Gated, class Y>
__device__ void tiled_product(const bf16* x, const bf16* weights, Epilogue end, Y* y, const int* offsets,
                              const int* rows, int groups, int tokens, int n, int k) {
  int group = 0, first = blockIdx.y * kTile, last = tokens, output = blockIdx.x * kTile;
  if (offsets) {
    if (!find_tile(offsets, groups, blockIdx.y, group, first)) return;
    last = offsets[group + 1];
  }
  const bf16* matrix = weights + (long long)group * n * (Gated ? 2 : 1) * k + (long long)output * k;
  auto token = [&](int i, int at) { return x + (long long)(rows ? rows[first + i] : first + i) * k + at; };
  auto put = [&](int i, int o, float a, float b) {
    Y* to = y + (long long)(first + i) * n + output + o;
    store(to, end.apply(a, first + i, output + o, n));
    store(to + 1, end.apply(b, first + i, output + o + 1, n));
  };
  tiled<Gated>(matrix, (long long)n * k, min(kTile, n - output), k, min(kTile, last - first), token, put);
}

#define TILED(name, Gated, Y)                                                                                         \
  KERNEL(name, kTiledThreads, const bf16* x, const bf16* weights, const bf16* bias, const bf16* residual, Y* y,       \
         const int* offsets, const int* rows, int groups, int activation, int tokens, int n, int k) {                 \
    tiled_product<Gated>(x, weights, {bias, residual, activation}, y, offsets, rows, groups, tokens, n, k);                                   \
  }
TILED(gemm_tiled, false, bf16)
TILED(gemm_tiled_f32, false, float)
TILED(gemm_tiled_swiglu, true, bf16)
