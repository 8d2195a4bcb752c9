// Tokens sorted by expert, and the experts' results brought back.
//
// ids: [tokens, top_k], the experts of each token. A slot is one (token, j). Sorted order: by expert, then by slot, so that
// the order is the same in every run.
//
// expert_counts, expert_places: a warp an expert looks at all slots, 32 at a time. Moves 4 slots bytes an expert, from the
// second-level cache; latency slots / 32 steps. expert_combine: a block a token, eight values a thread; moves
// 2 h (top_k + 1) bytes a token.
// Not measured yet.
#include "device.cuh"

constexpr int kThreads = 256;

// counts[e]: slots of expert e.
KERNEL(expert_counts, kThreads, const int* ids, int* counts, int slots, int experts) {
  int lane = threadIdx.x % kWarp, expert = blockIdx.x * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (expert >= experts) return;
  int count = 0;
  for (int slot = lane; slot < slots; slot += kWarp) count += ids[slot] == expert;
  count = warp_sum(count);
  if (lane == 0) counts[expert] = count;
}

// offsets: [experts + 1]; rows[position]: the token at a sorted position; places[slot]: the position of a slot.
KERNEL(expert_places, kThreads, const int* ids, const int* counts, int* offsets, int* rows, int* places, int slots,
       int experts, int top_k) {
  int lane = threadIdx.x % kWarp, expert = blockIdx.x * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (expert >= experts) return;
  int before = 0;
  for (int other = lane; other < expert; other += kWarp) before += counts[other];
  int next = warp_sum(before);
  if (lane == 0) {
    offsets[expert] = next;
    if (expert == experts - 1) offsets[experts] = next + counts[expert];
  }
  for (int base = 0; base < slots; base += kWarp) {
    int slot = base + lane;
    bool mine = slot < slots && ids[slot] == expert;
    unsigned all = __ballot_sync(kAllLanes, mine);
    if (mine) {
      int position = next + __popc(all & ((1u << lane) - 1));
      rows[position] = slot / top_k;
      places[slot] = position;
    }
    next += __popc(all);
  }
}

// y[t] = sum_j weights[t, j] x[places[t, j]] + sigmoid(gates[t * gate_stride]) shared[t] + residual[t], in f32, rounded
// once; shared (with gates) and residual may be null.
KERNEL(expert_combine, kThreads, const bf16* x, const int* places, const float* weights, const bf16* shared,
       const bf16* gates, const bf16* residual, bf16* y, int top_k, int gate_stride, int h) {
  long long token = blockIdx.x;
  float gate = shared ? 1.0f / (1.0f + __expf(-to_float(gates[token * gate_stride]))) : 0.0f;
  for (int at = threadIdx.x * 8; at < h; at += kThreads * 8) {
    float sum[8] = {}, row[8];
    for (int j = 0; j < top_k; j++) {
      float weight = weights[token * top_k + j];
      load8(row, x + (long long)places[token * top_k + j] * h + at);
#pragma unroll
      for (int i = 0; i < 8; i++) sum[i] += weight * row[i];
    }
    if (shared) {
      load8(row, shared + token * h + at);
#pragma unroll
      for (int i = 0; i < 8; i++) sum[i] += gate * row[i];
    }
    if (residual) {
      load8(row, residual + token * h + at);
#pragma unroll
      for (int i = 0; i < 8; i++) sum[i] += row[i];
    }
    store8(y + token * h + at, sum);
  }
}
