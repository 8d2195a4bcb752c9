// The log-mel spectrogram: power spectrum of windows of 400 samples every 160, mel bands, logarithm.
//
// log_mel_frames: a block a frame, a thread a bin, by the definition of the Fourier transform: 201 * 400 * 2 products a
// frame, 16 million a second of audio, which a device does in passing. Moves 0.6 KB a frame in and 4 mels out.
// log_mel_finish: a thread a value; moves 20 bytes.
// Roofline: neither; latency. Not measured yet.
#include "device.cuh"

constexpr int kThreads = 256;
constexpr int kSamples = 400;
constexpr int kBins = kSamples / 2 + 1;
constexpr int kHop = 160;

// Integers in the order of floats.
__device__ __forceinline__ int ordered(float x) {
  int bits = __float_as_int(x);
  return bits >= 0 ? bits : bits ^ 0x7fffffff;
}
__device__ __forceinline__ float from_ordered(int bits) { return __int_as_float(bits >= 0 ? bits : bits ^ 0x7fffffff); }

// pcm: [(frames - 1) * 160 + 400]; tables: window, cosines and sines, [3, 400]; band b sums bins from firsts[b] with weights
// offsets[b] .. offsets[b + 1]. out: [frames, mels]. peak: the largest value so far, as an ordered integer.
KERNEL(log_mel_frames, kThreads, const float* pcm, const float* tables, const int* firsts, const int* offsets,
       const float* weights, float* out, int* peak, int mels) {
  __shared__ float x[kSamples], cosines[kSamples], sines[kSamples], power[kBins];
  for (int n = threadIdx.x; n < kSamples; n += kThreads) {
    x[n] = pcm[(long long)blockIdx.x * kHop + n] * tables[n];
    cosines[n] = tables[kSamples + n];
    sines[n] = tables[2 * kSamples + n];
  }
  __syncthreads();
  for (int k = threadIdx.x; k < kBins; k += kThreads) {
    float re = 0, im = 0;
#pragma unroll 4
    for (int n = 0, at = 0; n < kSamples; n++) {
      re += x[n] * cosines[at];
      im += x[n] * sines[at];
      at += k;
      if (at >= kSamples) at -= kSamples;
    }
    power[k] = re * re + im * im;
  }
  __syncthreads();
  for (int band = threadIdx.x; band < mels; band += kThreads) {
    float sum = 0;
    for (int i = offsets[band]; i < offsets[band + 1]; i++) sum += weights[i] * power[firsts[band] + i - offsets[band]];
    float value = log10f(fmaxf(sum, 1e-10f));
    out[(long long)blockIdx.x * mels + band] = value;
    atomicMax(peak, ordered(value));
  }
}

// y[i] = ((max(x[i], peak - 8) + 4) / 4, and seven zeros): the plane that conv2d takes.
KERNEL(log_mel_finish, kThreads, const float* x, const int* peak, bf16* y, int values) {
  int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= values) return;
  float all[8] = {(fmaxf(x[i], from_ordered(*peak) - 8.0f) + 4.0f) * 0.25f};
  store8(y + (long long)i * 8, all);
}
