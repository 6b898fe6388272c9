#pragma once
// How the kernels that take train words one by one walk through a slice: a block of kWarps warps
// covers kBlockRows rows and 128 columns; a warp holds kRows rows of 64 columns in registers, a
// lane two columns of each, c and c + 16 of a group of 32, which share a hash. Row words are the
// same for a whole warp, so that what fires nowhere is skipped by all lanes together. Words and
// keys of kChunk train words at a time come to shared memory, the next ones while these are in use.
#include "cuda/taps.h"

namespace pulseline::cuda {

constexpr int kRows = 8, kWarpRows = 2, kWarpColumns = 2;
constexpr int kBlockRows = kRows * kWarpRows, kBlockColumns = 64 * kWarpColumns;
constexpr int kBlockThreads = 32 * kWarpRows * kWarpColumns;
constexpr int kChunk = 16;
static_assert(kPadColumns % kBlockColumns == 0 && kPadRows % kBlockRows == 0, "whole blocks");

struct alignas(16) Chunk {
  uint32_t columns[kChunk][kBlockColumns], rows[kChunk][kBlockRows];
  Keys keys[kChunk];
};
static_assert(2 * sizeof(Chunk) <= kStaticShared, "two chunks fit");

// Where a lane's crosspoints lie.
struct LanePlace {
  int64_t row, column;        // of its warp's block
  int warp_row, lane_column;  // within the block: first row, first column of the lane
  PL_DEVICE LanePlace() {
    const int warp = int(threadIdx.x / 32), lane = int(threadIdx.x % 32);
    warp_row = warp / kWarpColumns * kRows;
    lane_column = warp % kWarpColumns * 64 + lane / 16 * 32 + lane % 16;
    row = int64_t(blockIdx.y) * kBlockRows + warp_row;
    column = int64_t(blockIdx.x) * kBlockColumns + lane_column;
  }
  static PL_DEVICE int64_t warp_column() {  // first one of 64
    return int64_t(blockIdx.x) * kBlockColumns + int(threadIdx.x / 32) % kWarpColumns * 64;
  }
  PL_DEVICE bool outside(const UpdateArgs& a) const {  // the whole block
    return int64_t(blockIdx.y) * kBlockRows >= a.rows ||
           int64_t(blockIdx.x) * kBlockColumns >= a.cols;
  }
};

// A lane's crosspoints: weight, parameters, base of the hash.
template <class D>
struct LaneCells {
  float w[kRows][2];
  Crosspoint<float> c[kRows][2];
  PL_DEVICE LaneCells(const UpdateArgs& a, const D& device, const LanePlace& at) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int h = 0; h < 2; ++h)
        c[r][h] = load_crosspoint(a, device, at.row + r, at.column + 16 * h, w[r][h]);
  }
  PL_DEVICE void store(const UpdateArgs& a, const LanePlace& at) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int h = 0; h < 2; ++h) store_weight(a, at.row + r, at.column + 16 * h, w[r][h]);
  }
  // A column as it would be stored, to values that are so far apart; lanes that lack it do nothing.
  PL_DEVICE void tap(const UpdateArgs& a, const LanePlace& at, int64_t column, float* values,
                     int64_t apart) const {
    const int64_t row = here(uint32_t(at.row));  // no address waits in a register
    const bool second = at.column + 16 == column;
    if (!second && at.column != column) return;
    values += row * apart;
#pragma unroll
    for (int r = 0; r < kRows; ++r, values += apart)
      if (row + r < a.rows) *values = (second ? w[r][1] : w[r][0]) + 0.0f;
  }
};
template <class D>
using LaneTaps = Tapped<D, 64>;

// cycle_normal of the two columns of a lane; the cubic comes from lane `count` of `cubic`.
struct CycleNoise {
  float cubic;
  uint32_t half;  // a register: two constants do not fit one instruction
  PL_DEVICE CycleNoise()
      : cubic(popcount_cubic(float(int(threadIdx.x % 32)))), half(opaque(0x3f000000u)) {}
  PL_DEVICE void draw(uint32_t base, Keys key, float (&xi)[2]) const {
    const uint32_t inner = hash_inner(base, key.k0, key.k1), h = hash_outer(inner);
    xi[0] =
        __shfl_sync(0xffffffffu, cubic, __popc(h & 0xffffu)) + as_float((inner & 0x7fffffu) | half);
    xi[1] = __shfl_sync(0xffffffffu, cubic, __popc(h >> 16)) + as_float(inner >> 9 | 0x3f000000u);
  }
};
PL_DEVICE uint32_t noise_base(int64_t row, int64_t column) {
  return uint32_t(row) * kRowStride + uint32_t(column) * kColumnStride;
}

// Chunks of a slice to shared memory: one thread's part.
struct WordFeed {
  LineStream<kBlockThreads, kChunk, kBlockColumns> columns;
  LineStream<kBlockThreads, kChunk, kBlockRows> rows;
  const TrainWord* train;
  SharedAddress keys;
  int left;  // train words that have not been asked for
  PL_DEVICE WordFeed(const Task& t, int slice, int count, Chunk* chunks)
      : columns(chunks->columns, t.column_words + int64_t(blockIdx.x) * kBlockColumns,
                t.padded_cols),
        rows(chunks->rows, t.row_words + int64_t(blockIdx.y) * kBlockRows, t.padded_rows),
        train(t.train_words + first_word(t, slice) + threadIdx.x),
        keys(shared_address(chunks->keys) + uint32_t(threadIdx.x * sizeof(Keys))),
        left(count) {}
  PL_DEVICE void next(const Task& t, int stage) {
    const uint32_t offset = uint32_t(stage) * uint32_t(sizeof(Chunk));
    columns.next(offset, t.padded_cols, left);
    rows.next(offset, t.padded_rows, left);
    if (int(threadIdx.x) < kChunk && int(threadIdx.x) < left)
      copy8_async(keys + offset, &train->cycle);
    train += kChunk;
    left -= kChunk;
    copies_commit();
  }
};

// What a warp sees of one train word.
struct Words {
  uint32_t row[kRows], column[2];
  uint32_t firing;  // rows with any slot
};

// Calls body(words, keys, number within the slice) for every train word that may touch the warp's
// rows and columns, in order.
template <class Body>
PL_DEVICE void for_words(const Task& t, int slice, const LanePlace& at, Chunk* chunks, Body body) {
  const int count = words_in(t, slice);
  for_stages<kChunk>(t, WordFeed(t, slice, count, chunks), count, [&](int stage, int first, int n) {
    const Chunk& chunk = chunks[stage];
    for (int s = 0; s < n; ++s) {
      Words words;
      const uint32_t mine = chunk.rows[s][at.warp_row + int(threadIdx.x % kRows)];
      words.firing = __ballot_sync(0xffffffffu, mine != 0) & ((1u << kRows) - 1);
      if (!words.firing) continue;
      words.column[0] = chunk.columns[s][at.lane_column];
      words.column[1] = chunk.columns[s][at.lane_column + 16];
      if (!__any_sync(0xffffffffu, int(words.column[0] | words.column[1]))) continue;
#pragma unroll
      for (int q = 0; q < kRows; q += 4) {
        const uint4 rows = *reinterpret_cast<const uint4*>(&chunk.rows[s][at.warp_row + q]);
        words.row[q] = rows.x;
        words.row[q + 1] = rows.y;
        words.row[q + 2] = rows.z;
        words.row[q + 3] = rows.w;
      }
      body(words, chunk.keys[s], first + s);
    }
  });
}
static_assert(32 % kRows == 0 && kRows % 4 == 0, "row words come in 16 bytes, one each for a vote");

inline dim3 block_grid(const Call& c) { return block_grid(c, kBlockRows, kBlockColumns); }

}  // namespace pulseline::cuda
