// What becomes of a projection's queries, keys and values before attention: queries and keys are normalised over the head
// (RMSNorm, if there are weights) and turned by their position (halves of a head are pairs), and keys and values go to
// their places in the cache.
//
// rope_turns: (cos, sin) of every pair of every row, once a step for all layers. A pair takes one of three positions
// (time, height, width), in any fraction. The angle is kept in turns and reduced before it is rounded, so that position
// 65536 is as exact as position 0. norm_rope_append: a warp a head; moves 4 D bytes a head, and the turns from the cache.
// Roofline: memory; a row of 40 heads of 128 is 20 KB, so latency.
// Not measured yet.
#include "device.cuh"

constexpr int kThreads = 128;
constexpr int kPairs = 2;  // of a lane: heads of up to 128 values

// positions: [3, rows]; speeds: [pairs] (whole, rest), turns for each position; axes: [pairs]; turns: [rows, pairs].
KERNEL(rope_turns, kThreads, const float* positions, const float2* speeds, const int* axes, float2* turns, int rows,
       int pairs, float magnitude) {
  int at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= rows * pairs) return;
  int row = at / pairs, pair = at % pairs;
  float position = positions[axes[pair] * rows + row];
  float2 speed = speeds[pair];
  float product = position * speed.x;
  float rest = fmaf(position, speed.x, -product) + position * speed.y;
  float turn = 2.0f * (product - rintf(product) + rest);
  turns[at] = make_float2(cospif(turn) * magnitude, sinpif(turn) * magnitude);
}

// qkv: [rows, heads + 2 kv_heads, D]; turns: [rows, D / 2]; slots: [rows], the place of a row in the cache, or negative for
// none. q: [rows, heads, D]. A cache: [places, kv_heads, D].
KERNEL(norm_rope_append, kThreads, const bf16* qkv, const bf16* q_gamma, const bf16* k_gamma, const float2* turns,
       const int* slots, bf16* q, bf16* k_cache, bf16* v_cache, int heads, int kv_heads, int head_dim, float eps) {
  int lane = threadIdx.x % kWarp, head = blockIdx.y * (kThreads / kWarp) + threadIdx.x / kWarp;
  long long row = blockIdx.x;
  int half = head_dim / 2;
  if (head >= heads + 2 * kv_heads) return;
  const bf16* from = qkv + (row * (heads + 2 * kv_heads) + head) * head_dim;
  bool is_query = head < heads, is_value = head >= heads + kv_heads;

  float first[kPairs] = {}, second[kPairs] = {}, squares = 0;
#pragma unroll
  for (int i = 0; i < kPairs; i++) {
    int pair = i * kWarp + lane;
    if (pair >= half) continue;
    first[i] = to_float(from[pair]);
    second[i] = to_float(from[pair + half]);
    squares += first[i] * first[i] + second[i] * second[i];
  }
  const bf16* gamma = is_value ? nullptr : is_query ? q_gamma : k_gamma;
  if (gamma) {
    float scale = rsqrtf(warp_sum(squares) / head_dim + eps);
#pragma unroll
    for (int i = 0; i < kPairs; i++) {
      int pair = i * kWarp + lane;
      if (pair >= half) continue;
      first[i] = rounded_to_bf16(rounded_to_bf16(first[i] * scale) * to_float(gamma[pair]));
      second[i] = rounded_to_bf16(rounded_to_bf16(second[i] * scale) * to_float(gamma[pair + half]));
    }
  }
  bf16* to;
  if (is_query) {
    to = q + (row * heads + head) * head_dim;
  } else {
    int slot = slots[row];
    if (slot < 0) return;
    to = (is_value ? v_cache : k_cache) + ((long long)slot * kv_heads + (head - heads) % kv_heads) * head_dim;
  }
#pragma unroll
  for (int i = 0; i < kPairs; i++) {
    int pair = i * kWarp + lane;
    if (pair >= half) continue;
    float2 turn = is_value ? make_float2(1.0f, 0.0f) : turns[row * half + pair];
    to[pair] = to_bf16(first[i] * turn.x - second[i] * turn.y);
    to[pair + half] = to_bf16(second[i] * turn.x + first[i] * turn.y);
  }
}
