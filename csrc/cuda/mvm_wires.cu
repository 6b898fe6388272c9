// Effective weights behind wires, the closed form of cpu/irdrop.cpp in the same double arithmetic:
// voltage profiles along the columns and the rows of every tile, then one quotient per crosspoint.
#include "cuda/mvm_device.h"

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
      current += conductance(a.w[r * a.cols + i], array) * level;
      level += j.chain.wire_resistance * current;
    }
    wires.level[(array * int64_t(gridDim.y) + blockIdx.y) * a.cols + i] = level;
  }
}

// A thread walks a row of a tile from its first column to the last.
__global__ void wires_rows_kernel(const ReadJob j, const Wires wires) {
  const ReadArgs& a = j.args;
  const int64_t r = int64_t(blockIdx.x) * kLines + threadIdx.x;
  if (r >= a.rows) return;
  const Range cols = range_of(blockIdx.y, tiles_of(a).cols, a.cols);
  for (int array = 0; array < 2; ++array) {
    double end = 1.0, through = 0.0;
    for (int64_t i = cols.first; i < cols.last; ++i) {
      wires.bit[(array * a.rows + r) * a.cols + i] = end;
      through += conductance(a.w[r * a.cols + i], array) * end;
      end += j.chain.wire_resistance * through;
    }
    wires.end[(array * a.rows + r) * int64_t(gridDim.y) + blockIdx.y] = end;
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
    const double end = wires.end[(array * a.rows + row) * across + col / tiles.cols];
    const double level = wires.level[(array * down + row / tiles.rows) * a.cols + col];
    const double drop =
        (end / wires.bit[array * count + at] + level / wires.word[array * count + at]) - 1.0;
    const double current = conductance(a.w[at], array) / drop;
    total += array == 0 ? current : -current;
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
