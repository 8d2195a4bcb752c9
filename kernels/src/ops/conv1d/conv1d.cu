// Convolution along time where all taps are inside: y[t, o] = f(sum_{j, c} w[o, j, c] x[t stride + j dilation, c] + bias[o])
// + residual[t, o]. Causal convolutions have their history in front of x; a transposed convolution is this one with a matrix
// of `stride` times the outputs.
//
// A tiled product (gemm.cuh) whose rows are gathered tap by tap as they are loaded; eight channels lie inside of one tap.
// Roofline: 2 t n k operations on the tensor cores; a frame of the vocoder's last blocks (1920 rows of 96 channels) moves
// more bytes of activations than of weights.
// Not measured yet.
#include "gemm.cuh"

template <class Y>
__device__ void conv1d(const bf16* x, const bf16* weights, Epilogue end, Y* y, int outputs, int c_in, int taps, int stride,
                       int dilation, int n) {
  int first = blockIdx.y * kTile, output = blockIdx.x * kTile, k = taps * c_in;
  auto row = [&](int i, int at) {
    int tap = at / c_in;
    return x + ((long long)(first + i) * stride + tap * dilation) * c_in + at - tap * c_in;
  };
  auto put = [&](int i, int o, float a, float b) {
    Y* to = y + (long long)(first + i) * n + output + o;
    store(to, end.apply(a, first + i, output + o, n));
    store(to + 1, end.apply(b, first + i, output + o + 1, n));
  };
  tiled<false>(weights + (long long)output * k, 0, min(kTile, n - output), k, min(kTile, outputs - first), row, put);
}

KERNEL(conv1d_bf16, kTiledThreads, const bf16* x, const bf16* weights, const bf16* bias, const bf16* residual, bf16* y,
       int activation, int outputs, int c_in, int taps, int stride, int dilation, int n) {
  conv1d(x, weights, {bias, residual, activation}, y, outputs, c_in, taps, stride, dilation, n);
}
KERNEL(conv1d_f32, kTiledThreads, const bf16* x, const bf16* weights, const bf16* bias, const bf16* residual, float* y,
       int activation, int outputs, int c_in, int taps, int stride, int dilation, int n) {
  conv1d(x, weights, {bias, residual, activation}, y, outputs, c_in, taps, stride, dilation, n);
}
