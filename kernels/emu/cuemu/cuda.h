// The names of CUDA C++ that kernels use, on fibers.
#pragma once

#include <algorithm>
#include <cmath>

#include "block.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
// Blocks of one OS thread run one after another, so a thread's copy is a block's copy.
#define __shared__ static thread_local
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

#define threadIdx (cuemu::block->current->thread)
#define blockIdx (cuemu::block->index)
#define blockDim (cuemu::block->grid->block)
#define gridDim (cuemu::block->grid->grid)

using std::max;
using std::min;

inline void __syncthreads(cuemu::Place at = cuemu::Place::here()) { cuemu::block_barrier(at); }
inline void __syncwarp(unsigned mask = ~0u, cuemu::Place at = cuemu::Place::here()) {
  cuemu::warp_barrier(mask & cuemu::block->current->warp->present, at);
}

namespace cuemu {

// Every lane gives `value` and gets that of lane `source`, which must take part.
template <class T>
inline T exchange(unsigned mask, T value, unsigned source, Place at) {
  static_assert(sizeof(T) <= kSlot, "too large to shuffle");
  mask &= block->current->warp->present;
  return collective(mask, &value, sizeof value, at, [&](unsigned char(*slots)[kSlot], uint32_t lanes) {
    if (!(lanes >> source & 1)) fail("line %d: shuffle from lane %u, which does not take part", at.line, source);
    T result;
    memcpy(&result, slots[source], sizeof result);
    return result;
  });
}

inline unsigned lane() { return block->current->lane; }

}  // namespace cuemu

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, cuemu::Place at = cuemu::Place::here()) {
  return cuemu::exchange(mask, value, source & 31, at);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, cuemu::Place at = cuemu::Place::here()) {
  return cuemu::exchange(mask, value, cuemu::lane() ^ bits, at);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned by, cuemu::Place at = cuemu::Place::here()) {
  unsigned lane = cuemu::lane();
  return cuemu::exchange(mask, value, lane >= by ? lane - by : lane, at);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned by, cuemu::Place at = cuemu::Place::here()) {
  unsigned lane = cuemu::lane();
  return cuemu::exchange(mask, value, lane + by < 32 ? lane + by : lane, at);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, cuemu::Place at = cuemu::Place::here()) {
  using namespace cuemu;
  mask &= block->current->warp->present;
  return collective(mask, &predicate, sizeof predicate, at, [&](unsigned char(*slots)[kSlot], uint32_t lanes) {
    unsigned result = 0;
    for (unsigned lane = 0; lane < kLanes; lane++) {
      int given = 0;
      if (lanes >> lane & 1) memcpy(&given, slots[lane], sizeof given);
      result |= unsigned(given != 0) << lane;
    }
    return result;
  });
}
inline int __any_sync(unsigned mask, int predicate, cuemu::Place at = cuemu::Place::here()) {
  return __ballot_sync(mask, predicate, at) != 0;
}
inline int __all_sync(unsigned mask, int predicate, cuemu::Place at = cuemu::Place::here()) {
  return __ballot_sync(mask, !predicate, at) == 0;
}

inline int atomicAdd(int* at, int value) { return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST); }
inline unsigned atomicAdd(unsigned* at, unsigned value) { return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST); }
inline float atomicAdd(float* at, float value) {
  auto* bits = reinterpret_cast<uint32_t*>(at);
  uint32_t old = __atomic_load_n(bits, __ATOMIC_RELAXED), wanted;
  float sum;
  do {
    memcpy(&sum, &old, 4);
    sum += value;
    memcpy(&wanted, &sum, 4);
  } while (!__atomic_compare_exchange_n(bits, &old, wanted, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
  memcpy(&sum, &old, 4);
  return sum;
}
inline int atomicMax(int* at, int value) {
  int old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (old < value && !__atomic_compare_exchange_n(at, &old, value, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
  }
  return old;
}
inline int atomicCAS(int* at, int expected, int value) {
  __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return expected;
}
inline int atomicExch(int* at, int value) { return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

inline unsigned __float_as_uint(float x) {
  unsigned bits;
  memcpy(&bits, &x, 4);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
inline int __float_as_int(float x) { return int(__float_as_uint(x)); }
inline float __int_as_float(int bits) { return __uint_as_float(unsigned(bits)); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float sinpif(float x) { return float(std::sin(3.14159265358979323846 * double(x))); }
inline float cospif(float x) { return float(std::cos(3.14159265358979323846 * double(x))); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
template <class T>
inline T __ldg(const T* at) {
  return *at;
}
