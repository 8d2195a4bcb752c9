// What every kernel includes: the instructions that CUDA C++ has no names for, bf16, and reductions.
//
// One source is compiled by nvcc for a GPU and by g++ for the emulator in kernels/emu, which carries the same instructions
// out on a CPU. Nothing here needs headers of the toolkit, which keeps a compilation under a second.
#pragma once

#ifdef __CUDACC__
#include <cstdint>
#else
#include "cuemu/launch.h"
#include "cuemu/tensor.h"
#endif

// KERNEL(name, threads, arguments...) { ... }: a kernel launched by that name with blocks of at most `threads`.
#ifdef __CUDACC__
#define KERNEL(name, threads, ...) extern "C" __global__ void __launch_bounds__(threads, 1) name(__VA_ARGS__)
#else
#define KERNEL(name, threads, ...)                                        \
  extern "C" void name(__VA_ARGS__);                                      \
  static cuemu::Registration name##_registration(#name, threads, &name);  \
  extern "C" void name(__VA_ARGS__)
#endif

// The shared memory whose size is given at the launch.
#ifdef __CUDACC__
extern __shared__ __align__(128) unsigned char causerie_shared[];
__device__ __forceinline__ unsigned char* dynamic_shared() { return causerie_shared; }
#else
inline unsigned char* dynamic_shared() { return reinterpret_cast<unsigned char*>(cuemu::block->shared); }
#endif

struct bf16 {
  unsigned short bits;
};

__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(unsigned(x.bits) << 16); }
__device__ __forceinline__ float to_float(float x) { return x; }

// To the nearest, ties to even.
__device__ __forceinline__ bf16 to_bf16(float x) {
#ifdef __CUDACC__
  bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#else
  unsigned bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {(unsigned short)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
#endif
}

__device__ __forceinline__ float rounded_to_bf16(float x) { return to_float(to_bf16(x)); }

__device__ __forceinline__ void store(bf16* at, float x) { *at = to_bf16(x); }
__device__ __forceinline__ void store(float* at, float x) { *at = x; }

// Two values in one register, the first in the low half, as mma takes them.
__device__ __forceinline__ unsigned pack_bf16(float first, float second) {
  return unsigned(to_bf16(first).bits) | unsigned(to_bf16(second).bits) << 16;
}
__device__ __forceinline__ float low_of(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_of(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }

// Eight values in one 16-byte access.
__device__ __forceinline__ void load8(float (&x)[8], const bf16* at) {
  uint4 v = *reinterpret_cast<const uint4*>(at);
  unsigned pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    x[2 * i] = low_of(pairs[i]);
    x[2 * i + 1] = high_of(pairs[i]);
  }
}
__device__ __forceinline__ void store8(bf16* at, const float (&x)[8]) {
  *reinterpret_cast<uint4*>(at) =
      make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}

#ifdef __CUDACC__
__device__ __forceinline__ unsigned shared_address(const void* p) { return unsigned(__cvta_generic_to_shared(p)); }

// 16 bytes from global to shared memory, the first `bytes` read and the rest zero.
__device__ __forceinline__ void cp_async16(void* to, const void* from, unsigned bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Pending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void mma_bf16_16816(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ int load_acquire(const int* at) {
  int value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
  return value;
}
__device__ __forceinline__ void spin_pause() { __nanosleep(20); }
#endif

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int lanes = kWarp / 2; lanes; lanes /= 2) x += __shfl_xor_sync(kAllLanes, x, lanes);
  return x;
}
__device__ __forceinline__ int warp_sum(int x) {
#pragma unroll
  for (int lanes = kWarp / 2; lanes; lanes /= 2) x += __shfl_xor_sync(kAllLanes, x, lanes);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int lanes = kWarp / 2; lanes; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, lanes));
  return x;
}

// The sum over a block of whole warps, in every thread. `partial`: 32 floats of shared memory, which may be used again
// after the next __syncthreads.
__device__ __forceinline__ float block_sum(float x, float* partial) {
  int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  x = warp_sum(x);
  if (lane == 0) partial[warp] = x;
  __syncthreads();
  return warp_sum(lane < warps ? partial[lane] : 0.0f);
}
