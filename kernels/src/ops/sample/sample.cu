// A token drawn from logits, as `sample` on a CPU draws it: penalty of what was seen, temperature, top-k, top-p, min-p, and
// a number of Philox4x32-10 that depends on the seed and the position alone.
//
// Mapping: a block of 512 threads a row. The k-th largest value is found digit by digit (four passes over the logits, from
// the cache after the first), what is above it is sorted in shared memory, and one thread walks down the few that are left
// in f64, in the order of the CPU. Moves 4 vocabulary bytes a row, and three times as many from the cache.
// Roofline: latency: at 152,064 tokens about 5 * 297 loads a thread.
// Not measured yet.
#include "device.cuh"

constexpr int kThreads = 512;
constexpr int kMost = 1024;  // candidates
constexpr int kDigits = 256;

struct Draw {
  float temperature, top_p, min_p, repetition;
  int top_k, unused;
  unsigned seed[2], position[2];
};

// Unsigned integers in the order of floats; what is not a number comes first.
__device__ __forceinline__ unsigned key_of(float x) {
  if (x != x) return 0;
  unsigned bits = __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float value_of(unsigned key) {
  return __uint_as_float(key & 0x80000000u ? key ^ 0x80000000u : ~key);
}

__device__ __forceinline__ double uniform(const Draw& draw) {
  unsigned counter[4] = {draw.position[0], draw.position[1], 0, 0}, key[2] = {draw.seed[0], draw.seed[1]};
  for (int round = 0; round < 10; round++) {
    unsigned a = __umulhi(0xD2511F53u, counter[0]), a_low = 0xD2511F53u * counter[0];
    unsigned b = __umulhi(0xCD9E8D57u, counter[2]), b_low = 0xCD9E8D57u * counter[2];
    unsigned next0 = b ^ counter[1] ^ key[0], next2 = a ^ counter[3] ^ key[1];
    counter[0] = next0, counter[1] = b_low, counter[2] = next2, counter[3] = a_low;
    key[0] += 0x9E3779B9u, key[1] += 0xBB67AE85u;
  }
  unsigned long long bits = (unsigned long long)counter[0] << 32 | counter[1];
  return double(bits >> 11) * (1.0 / 9007199254740992.0);
}

// logits: [rows, vocabulary]; seen: [rows, words], a bit a token, or null; banned: [words] or null; tokens: [rows].
KERNEL(sample_token, kThreads, const float* logits, const Draw* draws, const unsigned* seen, const unsigned* banned,
       int* tokens, int vocabulary) {
  __shared__ int histogram[kDigits], ids[kMost], count, digit, above;
  __shared__ unsigned keys[kMost];
  __shared__ unsigned best_key[kThreads / kWarp];
  __shared__ int best_id[kThreads / kWarp];
  int row = blockIdx.x, lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, words = (vocabulary + 31) / 32;
  Draw draw = draws[row];
  auto key = [&](int i) -> unsigned {
    float x = logits[(long long)row * vocabulary + i];
    if (banned && banned[i / 32] >> (i % 32) & 1) return 0;
    if (seen && seen[(long long)row * words + i / 32] >> (i % 32) & 1)
      x = x > 0.0f ? x / draw.repetition : x * draw.repetition;
    return key_of(x);
  };

  unsigned greatest = 0;
  int which = 0;
  for (int i = threadIdx.x; i < vocabulary; i += kThreads) {
    unsigned mine = key(i);
    if (mine > greatest) greatest = mine, which = i;
  }
#pragma unroll
  for (int by = kWarp / 2; by; by /= 2) {
    unsigned other = __shfl_xor_sync(kAllLanes, greatest, by);
    int id = __shfl_xor_sync(kAllLanes, which, by);
    if (other > greatest || (other == greatest && id < which)) greatest = other, which = id;
  }
  if (lane == 0) best_key[warp] = greatest, best_id[warp] = which;
  __syncthreads();
  greatest = best_key[0], which = best_id[0];
  for (int i = 1; i < kThreads / kWarp; i++)
    if (best_key[i] > greatest || (best_key[i] == greatest && best_id[i] < which))
      greatest = best_key[i], which = best_id[i];
  float most = greatest ? value_of(greatest) : -INFINITY;
  if (draw.temperature <= 0.0f || draw.top_k == 1 || !(fabsf(most) < INFINITY)) {
    if (threadIdx.x == 0) tokens[row] = most == -INFINITY ? 0 : which;
    return;
  }

  // The key of the last candidate, and how many of those that have it are candidates.
  unsigned threshold = 0, known = 0;
  int wanted = min(min(draw.top_k, vocabulary), kMost), equal = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < kDigits; i += kThreads) histogram[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < vocabulary; i += kThreads) {
      unsigned mine = key(i);
      if ((mine & known) == threshold) atomicAdd(&histogram[mine >> shift & (kDigits - 1)], 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int at = kDigits - 1, sum = 0;
      while (at > 0 && sum + histogram[at] < wanted) sum += histogram[at--];
      digit = at, above = sum, count = 0;
    }
    __syncthreads();
    threshold |= unsigned(digit) << shift;
    known |= unsigned(kDigits - 1) << shift;
    wanted -= above;
    equal = histogram[digit];
    __syncthreads();
  }

  // Candidates in any order; of too many equals the lower numbers.
  for (int i = threadIdx.x; i < vocabulary; i += kThreads) {
    unsigned mine = key(i);
    if (mine > threshold || (mine == threshold && equal <= wanted)) {
      int slot = atomicAdd(&count, 1);
      keys[slot] = mine, ids[slot] = i;
    }
  }
  __syncthreads();
  if (equal > wanted) {
    if (warp == 0) {
      int slot = count, last = slot + wanted;
      for (int base = 0; base < vocabulary && slot < last; base += kWarp) {
        bool mine = base + lane < vocabulary && key(base + lane) == threshold;
        unsigned all = __ballot_sync(kAllLanes, mine);
        int to = slot + __popc(all & ((1u << lane) - 1));
        if (mine && to < last) keys[to] = threshold, ids[to] = base + lane;
        slot += __popc(all);
      }
      if (lane == 0) count = last;
    }
    __syncthreads();
  }

  // Sorted: larger keys first, of equals the lower number.
  int size = kWarp, found = count;
  while (size < found) size *= 2;
  for (int i = found + threadIdx.x; i < size; i += kThreads) keys[i] = 0, ids[i] = 0x7fffffff;
  __syncthreads();
  for (int span = 2; span <= size; span *= 2)
    for (int apart = span / 2; apart; apart /= 2) {
      for (int i = threadIdx.x; i < size; i += kThreads) {
        int other = i ^ apart;
        if (other < i) continue;
        bool before = keys[i] > keys[other] || (keys[i] == keys[other] && ids[i] < ids[other]);
        if (before == ((i & span) == 0)) continue;
        unsigned key = keys[i];
        int id = ids[i];
        keys[i] = keys[other], ids[i] = ids[other];
        keys[other] = key, ids[other] = id;
      }
      __syncthreads();
    }
  if (threadIdx.x) return;

  auto weight = [&](int i) { return exp(double((value_of(keys[i]) - most) / draw.temperature)); };
  // What is less likely than e^-40 times the likeliest is out of reach of a draw of 53 bits.
  float reach = most - 40.0f * draw.temperature;
  while (found > 1 && (keys[found - 1] == 0 || !(value_of(keys[found - 1]) >= reach))) found--;
  if (draw.top_p < 1.0f) {
    double total = 0, before = 0;
    for (int i = 0; i < found; i++) total += weight(i);
    double enough = double(fmaxf(draw.top_p, 0.0f)) * total;
    int keep = 0;
    while (keep < found && before < enough) before += weight(keep++);
    found = max(keep, 1);
  }
  if (draw.min_p > 0.0f)
    while (found > 1 && weight(found - 1) < double(draw.min_p)) found--;
  double total = 0;
  for (int i = 0; i < found; i++) total += weight(i);
  double left = uniform(draw) * total;
  int chosen = found - 1;
  for (int i = 0; i < found; i++) {
    left -= weight(i);
    if (left < 0) {
      chosen = i;
      break;
    }
  }
  tokens[row] = ids[chosen];
}
