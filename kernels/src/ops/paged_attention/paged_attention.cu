// Attention of grouped queries over keys and values in pages or in rows: causal or not, in a window with sinks or not, for
// one token of each sequence or many.
//
// out[i, h] = sum_j softmax_j(scale q[i, h] . k[j, g]) v[j, g]. The heads that share keys are rows of one product: row r of
// a tile is query r / G, head r % G of the group, so that decoding with 8 heads a group fills half of an mma.
//
// attention_*_rows16: a warp for 16 rows of one key head and one share of the keys (flash decoding, arXiv 2311.01282 §3).
// Moves 4 D bytes a key and key head; roofline: memory, expected at 60 % or more once sequences times key heads times
// shares fill the device; 16 KB of keys and values in flight a warp.
// attention_*_rows64: four warps, 16 rows each, share the tiles of keys (arXiv 2307.08691). Roofline: 4 m n D operations on
// the tensor cores; mma.sync is expected to reach about half of what wgmma can.
// attention_merge: brings the shares together; 4 (D + 2) bytes a share.
// Not measured yet.
#include "device.cuh"

constexpr int kKeys = 32;  // of a tile
constexpr int kPageSize = 16;

// A sequence: its first row of q, its queries, its keys, and its first page (or row, without pages). The queries are the
// last of the keys' positions.
struct Sequence {
  int first_query, queries, keys, first_page;
};

// Strides in values.
struct Layout {
  const bf16* data;
  long long page_stride, row_stride, head_stride;
};

template <int D>
__device__ __forceinline__ bf16* key_chunk(bf16* tile, int row, int chunk) {
  return tile + row * D + (chunk ^ (row & 7)) * 8;
}

template <int D, int Warps>
__device__ void attend(const bf16* q, Layout keys, Layout values, const int* pages, const Sequence* sequences, bf16* out,
                       float* shares, int q_stride, int heads, int kv_heads, int head_dim, int splits, int causal,
                       int window, int sinks, float scale) {
  constexpr int kThreads = Warps * kWarp, kChunks = D / 8;
  constexpr int kStage = kKeys * D;
  __shared__ __align__(128) bf16 k_tiles[2][kStage];
  __shared__ __align__(128) bf16 v_tiles[2][kStage];
  int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, group = lane / 4, quad = lane % 4;
  int kv_head = blockIdx.y / splits, split = blockIdx.y % splits, sharing = heads / kv_heads;
  Sequence sequence = sequences[blockIdx.z];
  int rows = sequence.queries * sharing, first_row = blockIdx.x * Warps * 16;
  if (first_row >= rows) return;

  // The keys that some row of the tile sees, and this block's share of them.
  int before = sequence.keys - sequence.queries;
  int last_row = min(first_row + Warps * 16, rows) - 1;
  int from = 0, until = sequence.keys;
  if (causal) until = before + last_row / sharing + 1;
  if (window && !sinks) from = max(0, before + first_row / sharing - window + 1);
  from = from / kKeys * kKeys;
  int share = ((until - from + splits - 1) / splits + kKeys - 1) / kKeys * kKeys;
  from += split * share;
  until = min(until, from + share);

  // This lane's two rows: where they are, and which keys they see.
  long long at[2], q_at[2];
  int low[2], high[2];
  bool there[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int row = first_row + warp * 16 + group + half * 8;
    there[half] = row < rows;
    int query = row / sharing, head = kv_head * sharing + row % sharing;
    at[half] = (long long)(sequence.first_query + query) * heads + head;
    q_at[half] = (long long)(sequence.first_query + query) * q_stride + head * head_dim;
    high[half] = !there[half] ? 0 : min(until, causal ? before + query + 1 : sequence.keys);
    low[half] = window ? max(from, before + query - window + 1) : from;
  }
  unsigned qa[D / 16][4];
#pragma unroll
  for (int step = 0; step < D / 16; step++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int column = step * 16 + quad * 2 + i / 2 * 8;
      bool inside = there[i % 2] && column < head_dim;
      qa[step][i] = inside ? *reinterpret_cast<const unsigned*>(q + q_at[i % 2] + column) : 0;
    }

  auto load = [&](int stage, int first) {
    for (int i = threadIdx.x; i < kKeys * kChunks; i += kThreads) {
      int row = i / kChunks, chunk = i % kChunks, key = first + row;
      bool inside = key < until && chunk * 8 < head_dim;
      long long page = 0;
      int offset = 0;
      if (inside) {
        page = pages ? pages[sequence.first_page + key / kPageSize] : 0;
        offset = pages ? key % kPageSize : sequence.first_page + key;
      }
      auto source = [&](const Layout& l) {
        return l.data + (inside ? page * l.page_stride + offset * l.row_stride + kv_head * l.head_stride + chunk * 8 : 0);
      };
      cp_async16(key_chunk<D>(k_tiles[stage], row, chunk), source(keys), inside ? 16 : 0);
      cp_async16(key_chunk<D>(v_tiles[stage], row, chunk), source(values), inside ? 16 : 0);
    }
  };

  float sum[D / 8][4] = {};
  float greatest[2] = {-INFINITY, -INFINITY}, total[2] = {0.0f, 0.0f};
  float log2_scale = scale * 1.4426950408889634f;
  if (from < until) load(0, from);
  cp_async_commit();
  for (int first = from, stage = 0; first < until; first += kKeys, stage ^= 1) {
    if (first + kKeys < until) load(stage ^ 1, first + kKeys);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();

    float s[kKeys / 8][4] = {};
#pragma unroll
    for (int step = 0; step < D / 16; step++)
#pragma unroll
      for (int pair = 0; pair < kKeys / 16; pair++) {
        unsigned b[4];
        ldmatrix_x4(b, key_chunk<D>(k_tiles[stage], pair * 16 + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
        unsigned b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
        mma_bf16_16816(s[pair * 2], qa[step], b0);
        mma_bf16_16816(s[pair * 2 + 1], qa[step], b1);
      }

    float tile_max[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int tile = 0; tile < kKeys / 8; tile++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int key = first + tile * 8 + quad * 2 + i % 2;
        bool seen = (key >= low[i / 2] || key < sinks) && key < high[i / 2];
        s[tile][i] = seen ? s[tile][i] * log2_scale : -INFINITY;
        tile_max[i / 2] = fmaxf(tile_max[i / 2], s[tile][i]);
      }
    float base[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      tile_max[half] = fmaxf(tile_max[half], __shfl_xor_sync(kAllLanes, tile_max[half], 1));
      tile_max[half] = fmaxf(tile_max[half], __shfl_xor_sync(kAllLanes, tile_max[half], 2));
      float now = fmaxf(greatest[half], tile_max[half]);
      base[half] = now == -INFINITY ? 0.0f : now;  // nothing seen yet
      float shrink = exp2f(greatest[half] - base[half]);
      greatest[half] = now;
      total[half] *= shrink;
#pragma unroll
      for (int tile = 0; tile < D / 8; tile++) sum[tile][half * 2] *= shrink, sum[tile][half * 2 + 1] *= shrink;
    }
#pragma unroll
    for (int tile = 0; tile < kKeys / 8; tile++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        s[tile][i] = exp2f(s[tile][i] - base[i / 2]);
        total[i / 2] += s[tile][i];
      }
#pragma unroll
    for (int step = 0; step < kKeys / 16; step++) {
      const float *left = s[step * 2], *right = s[step * 2 + 1];
      unsigned p[4] = {pack_bf16(left[0], left[1]), pack_bf16(left[2], left[3]), pack_bf16(right[0], right[1]),
                       pack_bf16(right[2], right[3])};
#pragma unroll
      for (int pair = 0; pair < D / 16; pair++) {
        unsigned b[4];
        ldmatrix_x4_trans(b, key_chunk<D>(v_tiles[stage], step * 16 + lane % 16, pair * 2 + lane / 16));
        unsigned b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
        mma_bf16_16816(sum[pair * 2], p, b0);
        mma_bf16_16816(sum[pair * 2 + 1], p, b1);
      }
    }
    __syncthreads();  // the tile may be overwritten
  }
  cp_async_wait<0>();

#pragma unroll
  for (int half = 0; half < 2; half++) {
    total[half] += __shfl_xor_sync(kAllLanes, total[half], 1);
    total[half] += __shfl_xor_sync(kAllLanes, total[half], 2);
    if (!there[half]) continue;
    float scaled = splits > 1 ? 1.0f : total[half] > 0.0f ? 1.0f / total[half] : 0.0f;
    float* part = shares + (at[half] * splits + split) * (head_dim + 2);
#pragma unroll
    for (int tile = 0; tile < D / 8; tile++) {
      int column = tile * 8 + quad * 2;
      if (column >= head_dim) continue;
      float first = sum[tile][half * 2] * scaled, second = sum[tile][half * 2 + 1] * scaled;
      if (splits > 1) {
        part[column] = first;
        part[column + 1] = second;
      } else {
        *reinterpret_cast<unsigned*>(out + at[half] * head_dim + column) = pack_bf16(first, second);
      }
    }
    if (splits > 1 && quad == 0) part[head_dim] = greatest[half], part[head_dim + 1] = total[half];
  }
}

#define ATTENTION(name, D, Warps)                                                                                      \
  KERNEL(name, Warps * kWarp, const bf16* q, const bf16* k, const bf16* v, const int* pages,                           \
         const Sequence* sequences, bf16* out, float* shares, int q_stride, int page_stride, int row_stride,           \
         int head_stride, int heads, int kv_heads, int head_dim, int splits, int causal, int window, int sinks,        \
         float scale) {                                                                                                \
    attend<D, Warps>(q, {k, page_stride, row_stride, head_stride}, {v, page_stride, row_stride, head_stride}, pages,   \
                     sequences, out, shares, q_stride, heads, kv_heads, head_dim, splits, causal, window, sinks,       \
                     scale);                                                                                           \
  }
ATTENTION(attention_64_rows16, 64, 1)
ATTENTION(attention_64_rows64, 64, 4)
ATTENTION(attention_128_rows16, 128, 1)
ATTENTION(attention_128_rows64, 128, 4)

// A block a row of q and head: a thread for each value of the head.
KERNEL(attention_merge, 128, const float* shares, bf16* out, int head_dim, int splits) {
  const float* mine = shares + (long long)blockIdx.x * splits * (head_dim + 2);
  float greatest = -INFINITY, total = 0, sum = 0;
  for (int split = 0; split < splits; split++) greatest = fmaxf(greatest, mine[split * (head_dim + 2) + head_dim]);
  if (greatest == -INFINITY) greatest = 0;
  for (int split = 0; split < splits; split++) {
    const float* part = mine + split * (head_dim + 2);
    float weight = exp2f(part[head_dim] - greatest);
    total += weight * part[head_dim + 1];
    if (threadIdx.x < head_dim) sum += weight * part[threadIdx.x];
  }
  if (threadIdx.x < head_dim) out[(long long)blockIdx.x * head_dim + threadIdx.x] = to_bf16(total > 0 ? sum / total : 0);
}
