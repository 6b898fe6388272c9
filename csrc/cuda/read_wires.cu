// Effective weights behind wires, the closed form of core/wires.h: voltage profiles along the
// columns and the rows of every tile, then one quotient per crosspoint.
#include "core/wires.h"
#include "cuda/read_device.h"

namespace pulseline::cuda {
namespace {

struct Tiles {  // of the matrix as it is stored
  int64_t rows, cols;
};
PL_HD Tiles tiles_of(const ReadArgs& a) {
  return {a.transposed ? a.tile_in : a.tile_out, a.transposed ? a.tile_out : a.tile_in};
}

// A thread walks a column of a tile from its last row to the first.
__global__ void wires_columns_kernel(const ReadJob j, const Wires wires) {
  const ReadArgs& a = j.args;
  const int64_t i = int64_t(blockIdx.x) * kLines + threadIdx.x;
  if (i >= a.cols) return;
  const Range rows = range_of(blockIdx.y, tiles_of(a).rows, a.rows);
  for (int array = 0; array < 2; ++array) {
    double level = 1.0, current = 0.0;
    for (int64_t r = rows.last - 1; r >= rows.first; --r) {
      wires.word[(array * a.rows + r) * a.cols + i] = level;
      pass_crosspoint(conductance(a.w[r * a.cols + i], array), j.chain.wire_resistance, level,
                      current);
    }
    wires.word_end[(array * int64_t(gridDim.y) + blockIdx.y) * a.cols + i] = level;
  }
}

// A thread walks a row of a tile from its first column to the last.
__global__ void wires_rows_kernel(const ReadJob j, const Wires wires) {
  const ReadArgs& a = j.args;
  const int64_t r = int64_t(blockIdx.x) * kLines + threadIdx.x;
  if (r >= a.rows) return;
  const Range cols = range_of(blockIdx.y, tiles_of(a).cols, a.cols);
  for (int array = 0; array < 2; ++array) {
    double end = 1.0, current = 0.0;
    for (int64_t i = cols.first; i < cols.last; ++i) {
      wires.bit[(array * a.rows + r) * a.cols + i] = end;
      pass_crosspoint(conductance(a.w[r * a.cols + i], array), j.chain.wire_resistance, end,
                      current);
    }
    wires.bit_end[(array * a.rows + r) * int64_t(gridDim.y) + blockIdx.y] = end;
  }
}

__global__ void wires_combine_kernel(const ReadJob j, const Wires wires) {
  const ReadArgs& a = j.args;
  const int64_t at = int64_t(blockIdx.x) * kLines + threadIdx.x, count = a.rows * a.cols;
  if (at >= count) return;
  const Tiles tiles = tiles_of(a);
  const int64_t row = at / a.cols, col = at % a.cols;
  const int64_t down = (a.rows + tiles.rows - 1) / tiles.rows;
  const int64_t across = (a.cols + tiles.cols - 1) / tiles.cols;
  double total = 0.0;
  for (int array = 0; array < 2; ++array) {
    const double bit_end = wires.bit_end[(array * a.rows + row) * across + col / tiles.cols];
    const double word_end = wires.word_end[(array * down + row / tiles.rows) * a.cols + col];
    const double bit = wires.bit[array * count + at], word = wires.word[array * count + at];
    total +=
        signed_by(array, behind_wires(conductance(a.w[at], array), bit, bit_end, word, word_end));
  }
  wires.effective[at] = float(total);
}

}  // namespace

cudaError_t launch_read_wires(const ReadJob& j, const Wires& wires, cudaStream_t stream) {
  const ReadArgs& a = j.args;
  const Tiles tiles = tiles_of(a);
  const dim3 columns(unsigned(ceil_div(a.cols, kLines)), unsigned(ceil_div(a.rows, tiles.rows)));
  const dim3 rows(unsigned(ceil_div(a.rows, kLines)), unsigned(ceil_div(a.cols, tiles.cols)));
  const dim3 all(unsigned(ceil_div(a.rows * a.cols, kLines)));
  PL_TRY(launch(wires_columns_kernel, columns, dim3(kLines), 0, stream, j, wires));
  PL_TRY(launch(wires_rows_kernel, rows, dim3(kLines), 0, stream, j, wires));
  return launch(wires_combine_kernel, all, dim3(kLines), 0, stream, j, wires);
}

}  // namespace pulseline::cuda
