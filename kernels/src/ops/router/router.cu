// The experts of each token: softmax of the router's logits over all experts in f32, the `top_k` likeliest in falling order
// (equals: the lower number first), their probabilities, divided by their sum if asked to. With `given` the experts are
// those, and only their weights are computed.
//
// Mapping: a warp a token, up to eight experts a lane, `top_k` rounds of a maximum over the warp.
// Moves 2 experts + 8 top_k bytes a token. Latency: about 10 shuffles a round.
// Not measured yet.
#include "device.cuh"

constexpr int kThreads = 128;
constexpr int kPerLane = 8;

KERNEL(router_top_k, kThreads, const bf16* logits, const int* given, int* ids, float* weights, int tokens, int experts,
       int top_k, int normalise) {
  int lane = threadIdx.x % kWarp, token = blockIdx.x * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (token >= tokens) return;
  const bf16* mine = logits + (long long)token * experts;
  float p[kPerLane];
  float greatest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kPerLane; i++) {
    int expert = i * kWarp + lane;
    p[i] = expert < experts ? to_float(mine[expert]) : -INFINITY;
    greatest = fmaxf(greatest, p[i]);
  }
  greatest = warp_max(greatest);
  float all = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; i++) {
    float e = __expf(p[i] - greatest);
    // What is not a number is never likely, but may be chosen where nothing else is left.
    p[i] = i * kWarp + lane >= experts ? -1.0f : e >= 0.0f ? e : 0.0f;
    all += fmaxf(p[i], 0.0f);
  }
  all = warp_sum(all);

  float chosen = 0, weight = 0;
  int id = 0;
  if (given) {
    id = lane < top_k ? given[(long long)token * top_k + lane] : 0;
#pragma unroll
    for (int i = 0; i < kPerLane; i++) {
      float there = __shfl_sync(kAllLanes, p[i], id % kWarp);
      if (id / kWarp == i) weight = there;
    }
    chosen = warp_sum(lane < top_k ? weight : 0.0f);
  }
  for (int round = 0; round < top_k && !given; round++) {
    float best = -2.0f;
    int which = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; i++)
      if (p[i] > best) best = p[i], which = i * kWarp + lane;
#pragma unroll
    for (int by = kWarp / 2; by; by /= 2) {
      float other = __shfl_xor_sync(kAllLanes, best, by);
      int expert = __shfl_xor_sync(kAllLanes, which, by);
      if (other > best || (other == best && expert < which)) best = other, which = expert;
    }
#pragma unroll
    for (int i = 0; i < kPerLane; i++)
      if (i * kWarp + lane == which) p[i] = -1.0f;
    chosen += best;
    if (lane == round) weight = best, id = which;
  }
  if (lane < top_k) {
    ids[(long long)token * top_k + lane] = id;
    weights[(long long)token * top_k + lane] = weight / (normalise ? chosen : all);
  }
}
