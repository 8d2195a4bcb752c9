// One block: a fiber for each thread, scheduled on one OS thread, with its barriers and warps.
//
// A fiber runs until it waits. Which waiting fiber goes on is a queue's turn (seed 0) or drawn with a seed: a missing
// barrier gives wrong results for most seeds. What a GPU leaves undefined is an error here: the block stops and the launch
// reports it.
#pragma once

#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "fiber.h"

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace cuemu {

constexpr unsigned kLanes = 32;
// Bytes that one lane can hand to the others at once.
constexpr size_t kSlot = 32;
// Polls of one thread before it counts as spinning for ever.
constexpr uint64_t kMaxPolls = 20'000'000;

// A place in the source, for messages and to see that lanes meet at the same operation.
struct Place {
  const char* file = "";
  int line = 0;
  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
  bool operator==(const Place& other) const { return line == other.line && (file == other.file || !strcmp(file, other.file)); }
};

// A copy that was asked for and is not carried out before somebody waits for it.
struct AsyncCopy {
  void* to;
  const void* from;
  unsigned bytes, zeros;
};

struct Warp;

struct Fiber {
  Context context;
  unsigned index, lane;
  dim3 thread;
  Warp* warp;
  bool done = false;
  Place waits_at;
  uint64_t polls = 0;
  std::vector<AsyncCopy> copies;  // not yet waited for, oldest first
  std::vector<size_t> groups;     // copies in each committed group, oldest first
};

struct Warp {
  uint32_t present = 0;   // lanes that began
  uint32_t live = 0;      // lanes that have not returned
  uint32_t waiting = 0;   // lanes inside a _sync operation
  unsigned parity = 0;    // buffer of the next operation of the whole warp
  uint32_t mask[kLanes];      // of the operation that a lane waits in
  uint32_t took_part[kLanes]; // lanes of the last operation that a lane was in
  Place place[kLanes];
  Fiber* fiber[kLanes];
  // Two buffers take turns for the whole warp, so that one wait an operation is enough; partial masks share the third.
  alignas(64) unsigned char slots[3][kLanes][kSlot];
};

// What the blocks of a launch share.
struct Grid {
  dim3 grid, block;
  uint64_t seed = 0;
  size_t shared_bytes = 0;
  void (*entry)(void*) = nullptr;
  void* argument = nullptr;
  std::atomic<bool> failed{false};
  std::string error;  // written by whoever sets `failed`
};

struct Block {
  Grid* grid;
  dim3 index;
  unsigned threads, live, at_barrier = 0;
  Place barrier;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<Fiber*> ready;  // a ring; its size is a power of two
  uint64_t head = 0, tail = 0, random = 0;
  char* shared = nullptr;
  Context outside;
  Fiber* current = nullptr;
};

inline thread_local Block* block;

// Ends the block with an error. Does not return, but is not declared so: that would make address sanitizers look for a
// stack that they know.
inline void fail(const char* format, ...) {
  Block* b = block;
  char text[600];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (!b->grid->failed.exchange(true)) {
    char where[100];
    snprintf(where, sizeof where, " (block %u,%u,%u thread %u)", b->index.x, b->index.y, b->index.z, b->current->index);
    b->grid->error = std::string(text) + where;
  }
  Context abandoned;
  cuemu_switch(&abandoned, b->outside);
}

inline void wake(Fiber* fiber) {
  Block* b = block;
  b->ready[b->tail++ & (b->ready.size() - 1)] = fiber;
}

// The fiber that goes on; null if none can.
inline Fiber* next_ready() {
  Block* b = block;
  if (b->head == b->tail) return nullptr;
  uint64_t last = b->ready.size() - 1;
  if (b->random) {  // xorshift64
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    uint64_t drawn = b->head + b->random % (b->tail - b->head);
    std::swap(b->ready[b->head & last], b->ready[drawn & last]);
  }
  return b->ready[b->head++ & last];
}

inline void run_another(Fiber* me) {
  Block* b = block;
  Fiber* next = next_ready();
  if (!next) {
    std::string waits;
    for (const Fiber& fiber : b->fibers)
      if (!fiber.done && waits.size() < 300)
        waits += " thread " + std::to_string(fiber.index) + " at line " + std::to_string(fiber.waits_at.line) + ";";
    fail("deadlock:%s", waits.c_str());
  }
  if (next != me) {
    b->current = next;
    cuemu_switch(&me->context, next->context);
  }
  b->current = me;
}

// Waits to be woken.
inline void wait(Place at) {
  block->current->waits_at = at;
  run_another(block->current);
}

// Lets the other threads run; for loops that poll memory.
inline void poll(Place at) {
  Fiber* me = block->current;
  if (block->grid->failed) fail("stopped");
  if (++me->polls > kMaxPolls) fail("line %d polls for ever", at.line);
  wake(me);
  wait(at);
}

inline void block_barrier(Place at) {
  Block* b = block;
  if (b->live != b->threads) fail("__syncthreads at line %d after some threads returned", at.line);
  if (b->at_barrier && !(b->barrier == at))
    fail("divergent __syncthreads: lines %d and %d", b->barrier.line, at.line);
  b->barrier = at;
  if (++b->at_barrier < b->live) return wait(at);
  b->at_barrier = 0;
  for (Fiber& fiber : b->fibers)
    if (&fiber != b->current) wake(&fiber);
}

// Lets the lanes of `mask` go on if all that have not returned are there. `me` is running and is not woken.
inline bool release(Warp* warp, uint32_t mask, const Fiber* me) {
  uint32_t lanes = mask & warp->live;
  if (!lanes || (warp->waiting & lanes) != lanes) return false;
  warp->waiting &= ~lanes;
  if ((mask & warp->present) == warp->present) warp->parity ^= 1;
  for (uint32_t rest = lanes; rest; rest &= rest - 1) {
    unsigned lane = __builtin_ctz(rest);
    warp->took_part[lane] = lanes;
    if (warp->fiber[lane] != me) wake(warp->fiber[lane]);
  }
  return true;
}

// Meets the other lanes of `mask`. Returns those that took part.
inline uint32_t warp_barrier(uint32_t mask, Place at) {
  Fiber* me = block->current;
  Warp* warp = me->warp;
  uint32_t bit = 1u << me->lane;
  if (!(mask & bit)) fail("line %d: lane %u is not in its own mask %08x", at.line, me->lane, mask);
  if (mask & ~warp->present) fail("line %d: mask %08x names lanes that the block does not have", at.line, mask);
  // Lanes that wait for each other have to be at the same operation. (One alone that waits for the other is early: the other
  // is still busy in a smaller group.)
  for (uint32_t rest = warp->waiting & mask; rest; rest &= rest - 1) {
    unsigned lane = __builtin_ctz(rest);
    if (!(warp->mask[lane] & bit)) continue;
    if (!(warp->place[lane] == at)) fail("divergent warp: lines %d and %d", warp->place[lane].line, at.line);
    if (warp->mask[lane] != mask) fail("line %d: masks %08x and %08x", at.line, warp->mask[lane], mask);
  }
  warp->waiting |= bit;
  warp->mask[me->lane] = mask;
  warp->place[me->lane] = at;
  if (!release(warp, mask, me)) wait(at);
  return warp->took_part[me->lane];
}

// An operation of several lanes: each gives `bytes` at `value`; `read(slots, lanes)` sees what all gave.
template <class Read>
inline auto collective(uint32_t mask, const void* value, size_t bytes, Place at, Read read) {
  Fiber* me = block->current;
  Warp* warp = me->warp;
  bool whole = (mask & warp->present) == warp->present;
  unsigned char(*slots)[kSlot] = warp->slots[whole ? warp->parity : 2];
  memcpy(slots[me->lane], value, bytes);
  uint32_t lanes = warp_barrier(mask, at);
  auto result = read(slots, lanes);
  if (!whole) warp_barrier(mask, {at.file, -at.line});  // nobody overwrites what somebody has still to read
  return result;
}

inline void thread_main() {
  Block* b = block;
  b->grid->entry(b->grid->argument);
  Fiber* me = b->current;
  if (!me->copies.empty()) fail("cp.async is never waited for");
  me->done = true;
  b->live--;
  if (b->at_barrier) fail("__syncthreads at line %d is not reached by all threads", b->barrier.line);
  Warp* warp = me->warp;
  warp->live &= ~(1u << me->lane);
  // Those who wait for this lane wait for it no longer.
  for (uint32_t rest = warp->waiting; rest; rest &= warp->waiting & (rest - 1))
    release(warp, warp->mask[__builtin_ctz(rest)], nullptr);
  if (!b->live) cuemu_switch(&me->context, b->outside);
  run_another(me);
}

// Memory that the blocks of one OS thread use one after another.
struct Arena {
  std::vector<char> shared_storage;
  char* stacks = nullptr;
  char* shared = nullptr;
};

// A thread's stack. Pages that are not touched cost nothing.
constexpr size_t kStack = 128 << 10;

inline void run_block(Grid& grid, dim3 index, Arena& arena) {
  Block b;
  block = &b;
  b.grid = &grid;
  b.index = index;
  b.threads = b.live = grid.block.x * grid.block.y * grid.block.z;
  b.shared = arena.shared;
  if (grid.shared_bytes) memset(b.shared, 0xff, grid.shared_bytes);  // not a number, whatever the type
  if (grid.seed) {
    uint64_t linear = index.x + grid.grid.x * (index.y + uint64_t(grid.grid.y) * index.z);
    b.random = grid.seed * 0x9E3779B97F4A7C15ull + linear + 1;
    if (!b.random) b.random = 1;
  }
  b.fibers.resize(b.threads);
  b.warps.resize((b.threads + kLanes - 1) / kLanes);
  size_t ring = 2;
  while (ring < 2 * b.threads) ring *= 2;
  b.ready.resize(ring);
  for (unsigned i = 0; i < b.threads; i++) {
    Fiber& fiber = b.fibers[i];
    fiber.index = i;
    fiber.lane = i % kLanes;
    fiber.thread = {i % grid.block.x, i / grid.block.x % grid.block.y, i / (grid.block.x * grid.block.y)};
    fiber.warp = &b.warps[i / kLanes];
    fiber.warp->present |= 1u << fiber.lane;
    fiber.warp->live |= 1u << fiber.lane;
    fiber.warp->fiber[fiber.lane] = &fiber;
    // Stacks begin at different cache sets.
    fiber.context = prepare(arena.stacks + i * kStack, kStack - i % 16 * 192, thread_main);
    wake(&fiber);
  }
  b.current = next_ready();
  cuemu_switch(&b.outside, b.current->context);
  block = nullptr;
}

}  // namespace cuemu
