// Matrix products of activations [tokens, k] and weights [n, k], bf16 with sums in f32.
//
// `streamed`: few tokens. Weights go from memory to registers once and never through shared memory; the warps of a block
// share 16 outputs and split k. Bound by the weights' bytes.
// `tiled`: many tokens. Tiles of 64 tokens and 64 outputs, three stages of cp.async, ldmatrix. Bound by the tensor cores.
//
// Both take rows of activations through a function object, which is what makes a gathered product or a convolution of
// them, and give results to one, which adds biases or rounds.
#pragma once

#include "device.cuh"

// silu(gate) * up, in f32.
__device__ __forceinline__ float swiglu(float gate, float up) { return gate / (1.0f + __expf(-gate)) * up; }

// What a product may end with: y = activation(x + bias) + residual, in f32. As `gemm::cuda::Activation`.
enum Activation { kNone, kSilu, kGelu, kGeluTanh };

struct Epilogue {
  const bf16* bias;      // [n] or null
  const bf16* residual;  // [tokens, n] or null
  int activation;

  __device__ __forceinline__ float apply(float x, long long token, int output, int n) const {
    if (bias) x += to_float(bias[output]);
    if (activation == kSilu) x = x / (1.0f + __expf(-x));
    // By erfc, which keeps its digits where the result is almost nothing.
    if (activation == kGelu) x = 0.5f * x * erfcf(-0.70710678f * x);
    if (activation == kGeluTanh) x = x / (1.0f + __expf(-1.5957691f * (x + 0.044715f * x * x * x)));
    return residual ? x + to_float(residual[token * n + output]) : x;
  }
};

constexpr int kStreamedThreads = 256;
constexpr int kStreamedRows = 16;
constexpr int kStreamedWarps = kStreamedThreads / kWarp;

// Sixteen outputs of up to 8 * Tiles tokens.
//
// Inputs of the mma are permuted along k: a lane's eight contiguous values serve two instructions, for weights and
// activations alike, so that every access has 16 bytes and the sum is over the same products.
//
// weights: row `first_row` of the matrix; with Gated, the rows of the second matrix begin `up` values behind. `rows` of
// the 16 are there. x(i): token i's row, or null. put(i, row, value).
template <int Tiles, bool Gated, class X, class Put>
__device__ void streamed(const bf16* weights, long long up, int rows, int k, X x, Put put) {
  constexpr int kTokens = 8 * Tiles;
  constexpr int kMatrices = Gated ? 2 : 1;
  __shared__ float partial[kStreamedWarps][kMatrices][kStreamedRows][kTokens + 1];
  int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, group = lane / 4, quad = lane % 4;

  const bf16* row_of[kMatrices][2];
#pragma unroll
  for (int matrix = 0; matrix < kMatrices; matrix++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int row = min(group + half * 8, rows - 1);  // a row that is not there is computed twice and dropped
      row_of[matrix][half] = weights + matrix * up + (long long)row * k + quad * 8;
    }
  const bf16* token[Tiles];
#pragma unroll
  for (int tile = 0; tile < Tiles; tile++) {
    token[tile] = x(tile * 8 + group);
    if (token[tile]) token[tile] += quad * 8;
  }

  float sum[kMatrices][Tiles][4] = {};
  const uint4 zero = make_uint4(0, 0, 0, 0);
#pragma unroll 2
  for (int at = warp * 32; at < k; at += kStreamedWarps * 32) {
    bool inside = at + quad * 8 < k;
    uint4 w[kMatrices][2], values[Tiles];
#pragma unroll
    for (int matrix = 0; matrix < kMatrices; matrix++)
#pragma unroll
      for (int half = 0; half < 2; half++)
        w[matrix][half] = inside ? *reinterpret_cast<const uint4*>(row_of[matrix][half] + at) : zero;
#pragma unroll
    for (int tile = 0; tile < Tiles; tile++)
      values[tile] = inside && token[tile] ? *reinterpret_cast<const uint4*>(token[tile] + at) : zero;
#pragma unroll
    for (int matrix = 0; matrix < kMatrices; matrix++) {
      const uint4 &low = w[matrix][0], &high = w[matrix][1];
      unsigned first[4] = {low.x, high.x, low.y, high.y}, second[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
      for (int tile = 0; tile < Tiles; tile++) {
        unsigned b0[2] = {values[tile].x, values[tile].y}, b1[2] = {values[tile].z, values[tile].w};
        mma_bf16_16816(sum[matrix][tile], first, b0);
        mma_bf16_16816(sum[matrix][tile], second, b1);
      }
    }
  }

  __syncthreads();  // the sums of an earlier call have been read
#pragma unroll
  for (int matrix = 0; matrix < kMatrices; matrix++)
#pragma unroll
    for (int tile = 0; tile < Tiles; tile++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        partial[warp][matrix][group + i / 2 * 8][tile * 8 + quad * 2 + i % 2] = sum[matrix][tile][i];
  __syncthreads();
  for (int i = threadIdx.x; i < kStreamedRows * kTokens; i += kStreamedThreads) {
    int row = i % kStreamedRows, column = i / kStreamedRows;
    if (row >= rows) continue;
    float total[kMatrices] = {};
    for (int part = 0; part < kStreamedWarps; part++)
#pragma unroll
      for (int matrix = 0; matrix < kMatrices; matrix++) total[matrix] += partial[part][matrix][row][column];
    if constexpr (Gated)
      put(column, row, swiglu(total[0], total[1]));
    else
      put(column, row, total[0]);
  }
}

constexpr int kTiledThreads = 128;
constexpr int kTile = 64;   // tokens, and outputs, of a block
constexpr int kDepth = 64;  // values of k a stage
constexpr int kStages = 3;

// Bytes of dynamic shared memory, as `gemm/cuda.rs` computes them too.
template <bool Gated>
constexpr int kTiledShared = kStages * (Gated ? 3 : 2) * kTile * kDepth * int(sizeof(bf16));

// The place of a 16-byte chunk of a row of 64 values: rotated by the row, so that the eight rows of an ldmatrix lie in
// different banks.
__device__ __forceinline__ bf16* chunk_at(bf16* tile, int row, int chunk) {
  return tile + row * kDepth + (chunk ^ (row & 7)) * 8;
}

// 64 outputs of 64 tokens. `n` outputs and `tokens` are there. x(token, at): eight values of a token from `at` of k on,
// or null for zeros. put(token, output, first, second): two neighbouring outputs; n is even.
template <bool Gated, class X, class Put>
__device__ void tiled(const bf16* weights, long long up, int n, int k, int tokens, X x, Put put) {
  constexpr int kMatrices = Gated ? 2 : 1;
  constexpr int kStage = (1 + kMatrices) * kTile * kDepth;
  bf16* shared = reinterpret_cast<bf16*>(dynamic_shared());
  int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;

  auto load = [&](int stage, int at) {
    bf16* tile = shared + stage * kStage;
    for (int i = threadIdx.x; i < kTile * kDepth / 8; i += kTiledThreads) {
      int row = i / (kDepth / 8), chunk = i % (kDepth / 8), from = at + chunk * 8;
      const bf16* source = row < tokens && from < k ? x(row, from) : nullptr;
      cp_async16(chunk_at(tile, row, chunk), source ? source : weights, source ? 16 : 0);
      bool there = row < n && from < k;
      const bf16* weight = there ? weights + (long long)row * k + from : weights;
      cp_async16(chunk_at(tile + kTile * kDepth, row, chunk), weight, there ? 16 : 0);
      if constexpr (Gated)
        cp_async16(chunk_at(tile + 2 * kTile * kDepth, row, chunk), there ? weight + up : weights, there ? 16 : 0);
    }
  };

  float sum[kMatrices][8][4] = {};
  int steps = (k + kDepth - 1) / kDepth;
#pragma unroll
  for (int stage = 0; stage < kStages - 1; stage++) {
    if (stage < steps) load(stage, stage * kDepth);
    cp_async_commit();
  }
  for (int step = 0; step < steps; step++) {
    cp_async_wait<kStages - 2>();
    __syncthreads();  // the stage has arrived for all, and all have finished with the one that is loaded next
    int ahead = step + kStages - 1;
    if (ahead < steps) load(ahead % kStages, ahead * kDepth);
    cp_async_commit();
    bf16* tile = shared + step % kStages * kStage;
#pragma unroll
    for (int chunk = 0; chunk < kDepth / 8; chunk += 2) {
      unsigned a[4];
      ldmatrix_x4(a, chunk_at(tile, warp * 16 + lane % 16, chunk + lane / 16));
#pragma unroll
      for (int matrix = 0; matrix < kMatrices; matrix++) {
        bf16* rows = tile + (1 + matrix) * kTile * kDepth;
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
          unsigned b[4];
          ldmatrix_x4(b, chunk_at(rows, pair * 16 + lane / 16 * 8 + lane % 8, chunk + lane / 8 % 2));
          unsigned b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
          mma_bf16_16816(sum[matrix][pair * 2], a, b0);
          mma_bf16_16816(sum[matrix][pair * 2 + 1], a, b1);
        }
      }
    }
  }
  cp_async_wait<0>();

#pragma unroll
  for (int tile = 0; tile < 8; tile++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int token = warp * 16 + lane / 4 + half * 8, output = tile * 8 + lane % 4 * 2;
      if (token >= tokens || output >= n) continue;
      float first = sum[0][tile][half * 2], second = sum[0][tile][half * 2 + 1];
      if constexpr (Gated) {
        first = swiglu(first, sum[kMatrices - 1][tile][half * 2]);
        second = swiglu(second, sum[kMatrices - 1][tile][half * 2 + 1]);
      }
      put(token, output, first, second);
    }
}

// Which group tile `tile` of all groups' tiles of kTile rows belongs to, and its first row. False behind the last.
// offsets: [groups + 1], the rows of group g are offsets[g] .. offsets[g + 1].
__device__ __forceinline__ bool find_tile(const int* offsets, int groups, int tile, int& group, int& first) {
  int lane = threadIdx.x % kWarp, before = 0;
  for (int base = 0; base < groups; base += kWarp) {
    int mine = base + lane;
    int tiles = mine < groups ? (offsets[mine + 1] - offsets[mine] + kTile - 1) / kTile : 0;
    int until = tiles;
#pragma unroll
    for (int by = 1; by < kWarp; by *= 2) {
      int left = __shfl_up_sync(kAllLanes, until, by);
      if (lane >= by) until += left;
    }
    unsigned past = __ballot_sync(kAllLanes, before + until > tile);
    if (past) {
      int found = __ffs(int(past)) - 1;
      group = base + found;
      int start = __shfl_sync(kAllLanes, before + until - tiles, found);
      first = offsets[group] + (tile - start) * kTile;
      return true;
    }
    before += __shfl_sync(kAllLanes, until, kWarp - 1);
  }
  return false;
}
