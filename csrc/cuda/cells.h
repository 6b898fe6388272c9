#pragma once
// Passes over the crosspoints of a matrix, each on its own: a block is 32 columns of 8 rows, then
// of the rows 8192 further down: a full GPU however narrow.
#include "cuda/device.h"
#include "cuda/launch.h"

namespace pulseline::cuda {

constexpr int kCellColumns = 32, kCellRows = 8;
constexpr int64_t kGridRows = 1024;

inline dim3 cell_grid(int64_t rows, int64_t cols) {
  const int64_t blocks = ceil_div(rows, kCellRows);
  return {unsigned(ceil_div(cols, kCellColumns)),
          unsigned(blocks < kGridRows ? blocks : kGridRows)};
}
inline dim3 cell_block() { return {kCellColumns, kCellRows}; }

// Calls body(row, column, offset) for the crosspoints of this thread.
template <class Body>
PL_DEVICE void for_cells(int64_t rows, int64_t cols, Body body) {
  const int64_t j = int64_t(blockIdx.x) * kCellColumns + threadIdx.x;
  if (j >= cols) return;
  for (int64_t i = int64_t(blockIdx.y) * kCellRows + threadIdx.y; i < rows;
       i += int64_t(gridDim.y) * kCellRows)
    body(uint32_t(i), uint32_t(j), i * cols + j);
}

}  // namespace pulseline::cuda
