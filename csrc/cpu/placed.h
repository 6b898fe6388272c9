#pragma once
// Arguments of one block of a block-diagonal matrix, whose blocks lie one behind the other; a dense
// matrix is one block. A block draws what it would draw in the whole matrix.
#include "core/args.h"

namespace pulseline::cpu {

// Taps of an update: what a column holds right after a sample, as if the batch ended there.
struct Taps {
  const int32_t* at = nullptr;  // [count][2] sample, column; in the order of samples
  int64_t count = 0;
  float* values = nullptr;  // [rows][count]
};

struct PlacedUpdate : UpdateArgs {
  int64_t x_stride, d_stride;  // from one sample to the next
  int64_t row0, col0;          // which crosspoint of the array w[0] is
  Taps taps = {};              // of a dense matrix
};

struct PlacedRead : ReadArgs {
  int64_t x_stride, y_stride;
  int64_t input0, output0;  // first lines of the array, in this direction
};

// Rows of a matrix. block_rows: of a block of it; 0: it is dense.
struct Rows {
  int64_t first, count, cols, block_rows;

  // First column of the array that a row has.
  int64_t col0(int64_t row) const { return block_rows ? row / block_rows * cols : 0; }
};

}  // namespace pulseline::cpu
