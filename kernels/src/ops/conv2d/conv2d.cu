// Convolution of planes with a square window: y[p, i, j, o] = f(sum_{a, b, c} w[o, a, b, c] x[p, s i + a - pad, s j + b -
// pad, c] + bias[o]), zeros outside of a plane. The stem of the audio tower.
//
// A tiled product (gemm.cuh) whose rows are gathered tap by tap as they are loaded; eight channels lie inside of one tap, so
// a plane with fewer is padded with zeros. Roofline: 2 rows columns n k operations on the tensor cores.
// Not measured yet.
#include "gemm.cuh"

KERNEL(conv2d, kTiledThreads, const bf16* x, const bf16* weights, const bf16* bias, bf16* y, int activation, int rows,
       int columns, int rows_out, int columns_out, int c_in, int kernel, int stride, int pad, int n) {
  int outputs = rows_out * columns_out, first = blockIdx.y * kTile, output = blockIdx.x * kTile;
  int k = kernel * kernel * c_in;
  x += (long long)blockIdx.z * rows * columns * c_in;
  y += (long long)blockIdx.z * outputs * n;
  Epilogue end = {bias, nullptr, activation};
  auto row = [&](int i, int at) -> const bf16* {
    int tap = at / c_in, r = (first + i) / columns_out * stride + tap / kernel - pad;
    int c = (first + i) % columns_out * stride + tap % kernel - pad;
    if (r < 0 || r >= rows || c < 0 || c >= columns) return nullptr;
    return x + ((long long)r * columns + c) * c_in + at - tap * c_in;
  };
  auto put = [&](int i, int o, float a, float b) {
    bf16* to = y + (long long)(first + i) * n + output + o;
    store(to, end.apply(a, 0, output + o, n));
    store(to + 1, end.apply(b, 0, output + o + 1, n));
  };
  tiled<false>(weights + (long long)output * k, 0, min(kTile, n - output), k, min(kTile, outputs - first), row, put);
}
