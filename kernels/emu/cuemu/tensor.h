// Tensor-core and asynchronous-copy instructions, under the names that device.cuh gives them.
#pragma once

#include "cuda.h"

// cp.async, 16 bytes. Carried out at the wait and not before, so that a missing or too shallow wait reads old data here
// as it may on a GPU. With `bytes` below 16 the rest is filled with zeros, as the instruction's src-size operand does.
inline void cp_async16(void* to, const void* from, unsigned bytes = 16) {
  if ((uintptr_t(to) | (bytes ? uintptr_t(from) : 0)) & 15) cuemu::fail("cp.async of 16 bytes is not aligned");
  cuemu::block->current->copies.push_back({to, from, bytes, 16 - bytes});
}

inline void cp_async_commit() {
  cuemu::Fiber* me = cuemu::block->current;
  size_t grouped = 0;
  for (size_t group : me->groups) grouped += group;
  me->groups.push_back(me->copies.size() - grouped);
}

// Waits until at most `Pending` groups are not complete.
template <int Pending>
inline void cp_async_wait() {
  cuemu::Fiber* me = cuemu::block->current;
  while (me->groups.size() > Pending) {
    size_t count = me->groups.front();
    for (size_t i = 0; i < count; i++) {
      const cuemu::AsyncCopy& copy = me->copies[i];
      memcpy(copy.to, copy.from, copy.bytes);
      memset(static_cast<char*>(copy.to) + copy.bytes, 0, copy.zeros);
    }
    me->copies.erase(me->copies.begin(), me->copies.begin() + count);
    me->groups.erase(me->groups.begin());
  }
}

namespace cuemu {

// Instructions of the whole warp need all 32 lanes.
inline void need_whole_warp(uint32_t lanes, const char* what, Place at) {
  if (lanes != ~0u) fail("line %d: %s needs a warp of 32 lanes", at.line, what);
}

inline void ldmatrix(unsigned (&r)[4], const void* row, bool transposed, Place at) {
  if (uintptr_t(row) & 15) fail("line %d: ldmatrix row is not aligned", at.line);
  unsigned lane = cuemu::lane();
  collective(block->current->warp->present, &row, sizeof row, at, [&](unsigned char(*slots)[kSlot], uint32_t lanes) {
    need_whole_warp(lanes, "ldmatrix", at);
    for (int matrix = 0; matrix < 4; matrix++) {
      const char* rows[8];
      for (int i = 0; i < 8; i++) memcpy(&rows[i], slots[matrix * 8 + i], sizeof rows[i]);
      if (!transposed) {
        memcpy(&r[matrix], rows[lane / 4] + lane % 4 * 4, 4);
      } else {
        uint16_t low, high;
        memcpy(&low, rows[lane % 4 * 2] + lane / 4 * 2, 2);
        memcpy(&high, rows[lane % 4 * 2 + 1] + lane / 4 * 2, 2);
        r[matrix] = low | unsigned(high) << 16;
      }
    }
    return 0;
  });
}

}  // namespace cuemu

// Four 8×8 matrices of 16-bit values; lane 8 m + i gives the address of row i of matrix m.
inline void ldmatrix_x4(unsigned (&r)[4], const void* row, cuemu::Place at = cuemu::Place::here()) {
  cuemu::ldmatrix(r, row, false, at);
}
inline void ldmatrix_x4_trans(unsigned (&r)[4], const void* row, cuemu::Place at = cuemu::Place::here()) {
  cuemu::ldmatrix(r, row, true, at);
}

// C[16, 8] += A[16, 16] B[16, 8], bf16 in, f32 out; the fragments are those of PTX mma.m16n8k16.
inline void mma_bf16_16816(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                           cuemu::Place at = cuemu::Place::here()) {
  using namespace cuemu;
  struct Operands {
    unsigned a[4], b[2];
  } mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  unsigned row = lane() / 4, pair = lane() % 4;
  auto low = [](unsigned v) { return __uint_as_float(v << 16); };
  auto high = [](unsigned v) { return __uint_as_float(v & 0xffff0000u); };
  collective(block->current->warp->present, &mine, sizeof mine, at, [&](unsigned char(*slots)[kSlot], uint32_t lanes) {
    need_whole_warp(lanes, "mma", at);
    for (int quad = 0; quad < 4; quad++) {
      Operands rows, left, right;  // rows of A, and the two columns of B that this lane's results are in
      memcpy(&rows, slots[row * 4 + quad], sizeof rows);
      memcpy(&left, slots[2 * pair * 4 + quad], sizeof left);
      memcpy(&right, slots[(2 * pair + 1) * 4 + quad], sizeof right);
      auto dot = [&](int upper, const unsigned(&column)[2]) {
        return low(rows.a[upper]) * low(column[0]) + high(rows.a[upper]) * high(column[0]) +
               low(rows.a[upper + 2]) * low(column[1]) + high(rows.a[upper + 2]) * high(column[1]);
      };
      c[0] += dot(0, left.b);
      c[1] += dot(0, right.b);
      c[2] += dot(1, left.b);
      c[3] += dot(1, right.b);
    }
    return 0;
  });
}

// A load that later loads of this thread are not moved before.
inline int load_acquire(const int* at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
// For loops that poll.
inline void spin_pause(cuemu::Place at = cuemu::Place::here()) { cuemu::poll(at); }
