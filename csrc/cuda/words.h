#pragma once
// How the kernels that take sub-samples one by one walk through a slice: a block of kWarps warps
// covers kBlockRows rows and 128 columns; a warp holds kRows rows of 64 columns in registers, a
// lane two columns of each, c and c + 16 of a group of 32, which share a hash. Row words are the
// same for a whole warp, so that what fires nowhere is skipped by all lanes together. Words and
// keys of kChunk sub-samples at a time come to shared memory, the next ones while these are in use.
#include "cuda/update_device.h"

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
struct Place {
  int64_t row, column;        // of its warp's block
  int warp_row, lane_column;  // within the block: first row, first column of the lane
  PL_DEVICE Place() {
    const int warp = int(threadIdx.x / 32), lane = int(threadIdx.x % 32);
    warp_row = warp / kWarpColumns * kRows;
    lane_column = warp % kWarpColumns * 64 + lane / 16 * 32 + lane % 16;
    row = int64_t(blockIdx.y) * kBlockRows + warp_row;
    column = int64_t(blockIdx.x) * kBlockColumns + lane_column;
  }
  PL_DEVICE bool outside(const UpdateArgs& a) const {  // the whole block
    return int64_t(blockIdx.y) * kBlockRows >= a.rows ||
           int64_t(blockIdx.x) * kBlockColumns >= a.cols;
  }
};

// A lane's crosspoints: weight, parameters, base of the hash.
template <class D>
struct Cells {
  float w[kRows][2];
  Crosspoint<float> c[kRows][2];
  PL_DEVICE Cells(const UpdateArgs& a, const D& device, const Place& at) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int h = 0; h < 2; ++h)
        c[r][h] = load_crosspoint(a, device, at.row + r, at.column + 16 * h, w[r][h]);
  }
  PL_DEVICE void store(const UpdateArgs& a, const Place& at) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int h = 0; h < 2; ++h) store_weight(a, at.row + r, at.column + 16 * h, w[r][h]);
  }
};

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

// This thread's part of chunk `number` of a slice.
PL_DEVICE void fetch(const Task& t, int64_t first, int64_t count, int64_t number, Chunk& chunk) {
  const int64_t begin = number * kChunk;
  const int n = begin >= count ? 0 : count - begin < kChunk ? int(count - begin) : kChunk;
  const uint32_t* columns =
      t.column_words + begin * t.padded_cols + int64_t(blockIdx.x) * kBlockColumns;
  const uint32_t* rows = t.row_words + begin * t.padded_rows + int64_t(blockIdx.y) * kBlockRows;
  constexpr int kColumnQuads = kBlockColumns / 4, kRowQuads = kBlockRows / 4;
  for (int i = int(threadIdx.x); i < n * kColumnQuads; i += kBlockThreads) {
    const int s = i / kColumnQuads, q = i % kColumnQuads * 4;
    copy16_async(&chunk.columns[s][q], columns + s * t.padded_cols + q);
  }
  for (int i = int(threadIdx.x); i < n * kRowQuads; i += kBlockThreads) {
    const int s = i / kRowQuads, q = i % kRowQuads * 4;
    copy16_async(&chunk.rows[s][q], rows + s * t.padded_rows + q);
  }
  if (int(threadIdx.x) < n)
    copy8_async(&chunk.keys[threadIdx.x], &t.subs[first + begin + threadIdx.x].cycle);
  copies_commit();
}

// What a warp sees of one sub-sample.
struct Words {
  uint32_t row[kRows], column[2];
  uint32_t firing;  // rows with any slot
};

// Calls body(words, keys, number within the slice) for every sub-sample that may touch the warp's
// rows and columns, in order.
template <class Body>
PL_DEVICE void for_words(const Task& t, int slice, const Place& at, Chunk* chunks, Body body) {
  const int64_t first = first_word(t, slice), count = words_in(t, slice);
  fetch(t, first, count, 0, chunks[0]);
  for (int64_t number = 0; number * kChunk < count; ++number) {
    fetch(t, first, count, number + 1, chunks[(number + 1) % 2]);
    copies_wait<1>();
    __syncthreads();
    const Chunk& chunk = chunks[number % 2];
    const int64_t left = count - number * kChunk;
    const int n = left < kChunk ? int(left) : kChunk;
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
      body(words, chunk.keys[s], number * kChunk + s);
    }
    __syncthreads();
  }
  copies_wait<0>();
}
static_assert(32 % kRows == 0 && kRows % 4 == 0, "row words come in 16 bytes, one each for a vote");

inline dim3 block_grid(const Call& c) { return block_grid(c, kBlockRows, kBlockColumns); }

}  // namespace pulseline::cuda
