#pragma once
// Blocks of warps that hold their crosspoints in the layout of tensor core sums. A warp has 16 rows
// of 8 TILES columns; lane (g, t) = (lane / 4, lane % 4) has rows g and g + 8, columns 8 n + 2 t
// and
// + 1 of tile n: four crosspoints i of each.
#include "cuda/update_device.h"

namespace pulseline::cuda {

// Where the crosspoints of a lane lie, in a block of WARP_ROWS by WARP_COLUMNS warps.
template <int WARP_ROWS, int WARP_COLUMNS, int TILES>
struct TilePlace {
  static constexpr int kRows = 16 * WARP_ROWS, kColumns = 8 * TILES * WARP_COLUMNS;  // of a block
  static constexpr int kThreads = 32 * WARP_ROWS * WARP_COLUMNS;
  static_assert(kPadRows % kRows == 0 && kPadColumns % kColumns == 0, "whole blocks");
  int g, t;
  int warp_row, warp_column;  // of its warp, within the block
  int row, column;            // of its first crosspoint, in the matrix
  PL_DEVICE TilePlace() {
    const int warp = int(threadIdx.x / 32), lane = int(threadIdx.x % 32);
    g = lane / 4;
    t = lane % 4;
    warp_row = warp / WARP_COLUMNS * 16;
    warp_column = warp % WARP_COLUMNS * (8 * TILES);
    row = int(blockIdx.y) * kRows + warp_row + g;
    column = int(blockIdx.x) * kColumns + warp_column + 2 * t;
  }
  PL_DEVICE int row_of(int i) const { return row + i / 2 * 8; }
  PL_DEVICE int column_of(int n, int i) const { return column + 8 * n + i % 2; }
  static PL_DEVICE int64_t first_column() {  // of the warp
    return int64_t(blockIdx.x) * kColumns + int(threadIdx.x / 32) % WARP_COLUMNS * (8 * TILES);
  }
  // What draws of a crosspoint are numbered by: of the first one, and how far the others are.
  PL_DEVICE uint32_t hash_base() const {
    return uint32_t(row) * kRowStride + uint32_t(column) * kColumnStride;
  }
  static PL_DEVICE uint32_t hash_offset(int n, int i) {
    return uint32_t(i / 2 * 8) * kRowStride + uint32_t(8 * n + i % 2) * kColumnStride;
  }
  static PL_DEVICE bool outside(const UpdateArgs& a) {  // the whole block
    return int64_t(blockIdx.y) * kRows >= a.rows || int64_t(blockIdx.x) * kColumns >= a.cols;
  }
  static dim3 grid(const Call& c) { return block_grid(c, kRows, kColumns); }
};

// Tiles that a warp relaxes: a lane has 16 crosspoints in registers, 8 where a step is long or has
// parameters of its own.
template <class D>
constexpr int kTilesOf = D::kAffine && !D::kOwnNoise ? 4 : 2;

// A lane's crosspoints: weights and device parameters.
template <class D, int N>
struct TileCells {
  static constexpr int TILES = N;
  float w[TILES][4];
  Crosspoint<float> c[TILES][4];
  template <class At>
  PL_DEVICE TileCells(const UpdateArgs& a, const D& device, const At& at) {
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        c[n][i] = load_crosspoint(a, device, at.row_of(i), at.column_of(n, i), w[n][i]);
  }
  template <class At>
  PL_DEVICE void store(const UpdateArgs& a, const At& at) const {
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) store_weight(a, at.row_of(i), at.column_of(n, i), w[n][i]);
  }
  // A column as it would be stored, to values that are so far apart; lanes that lack it do nothing.
  template <class At>
  PL_DEVICE void tap(const UpdateArgs& a, const At& at, int64_t column, float* values,
                     int64_t apart) const {
    const int row = int(here(uint32_t(at.row)));  // no address waits in a register
    const int64_t place = column - at.column;
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (place == 8 * n + i % 2 && row + i / 2 * 8 < a.rows)
          values[(row + i / 2 * 8) * apart] = w[n][i] + 0.0f;
  }
};

// For a relaxation in a loop: the squares of additive noise would be worked out before the loop and
// keep registers.
template <bool ADDITIVE, class D>
PL_DEVICE Crosspoint<float> squared_here(Crosspoint<float> c) {
  if (!ADDITIVE) return c;
  float& up = D::kOwnNoise ? c.extra_up : c.up;
  float& down = D::kOwnNoise ? c.extra_down : c.down;
  up = as_float(here(as_bits(up)));
  down = as_float(here(as_bits(down)));
  return c;
}

// One gaussian per group and crosspoint: byte_sum_normal with the sum of bytes in one instruction.
PL_DEVICE float group_normal(uint32_t base, Keys key) {
  const uint32_t sum = __dp4a(hash(base, key.k0, key.k1), kByteWeights, 0u);
  return byte_sum_polynomial(float(int32_t(sum) - kByteMean));
}

}  // namespace pulseline::cuda
