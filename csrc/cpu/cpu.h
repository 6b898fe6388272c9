#pragma once
// The CPU backend as the bindings see it: whole operations on raw pointers.
// `threads` is the largest number of OpenMP threads; results never depend on it.
#include <cstdint>

#include "core/args.h"
#include "core/chain.h"
#include "core/retention.h"
#include "core/unfold.h"
#include "cpu/placed.h"

namespace pulseline::cpu {

constexpr int32_t kUnsolved = 3;

// Where a value is not finite; source 0: none, 1: x, 2: d. kUnsolved: the nodal equations of wires
// did not converge.
struct Status {
  int32_t source = 0;
  int64_t sample = 0;
  int64_t saturated = 0;  // lines that an update asks to fire more often than in every slot
};

// Whose parameters are drawn anew where none are stored: device model (index in PULSELINE_DEVICES)
// with `params` in the order of its kFields; what acts between pulses, where that is asked for.
struct Population {
  int device = -1;
  const float* params = nullptr;
  RetentionParams retention = {};
};

// Pulsed update by device model `device` with `params`. Nothing is written unless every x and d is
// finite.
// block_rows: of a block-diagonal matrix; rows are all of it, cols those of one block, x has the
// columns of all. Each block is managed on its own. 0: the matrix is dense.
Status update(const PlacedUpdate& args, int device, const float* params, int64_t block_rows,
              int threads);

// Outer product W -= lr d x^T, samples in order, one fma each: the ideal device.
Status update_ideal(const PlacedUpdate& args, int64_t block_rows, int threads);

// Pairs of their crosspoints, see devices/pulsed.h; slope: nullptr: left out.
void construct(int device, const float* params, const Stream& stream, const Rows& rows,
               uint32_t* step, uint32_t* slope, uint32_t* bound, int threads);

Status read(const PlacedRead& args, int64_t block_rows, int threads);

// The same with options of the converter chain. `average` is written unless a value is not finite.
Status read_chain(const PlacedRead& args, const Chain& chain, int64_t block_rows, int threads);

// Between pulses, see core/retention.h: the stored words [2][rows][cols]; one event or a
// reset.
void construct_retention(const RetentionParams& params, const Stream& stream, const Rows& rows,
                         uint32_t* words, int threads);
void retain(const RetentionArgs& args, const Population& drawn, int64_t block_rows, int threads);

// Write noise. After programming: of every crosspoint; after an update with the same arguments
// (w: what is read): of those that its pulses reached.
struct Written {
  const float* hidden;
  const uint32_t* step;  // nullptr: drawn anew
  float* visible;
  float deviation;
  Population drawn;
};
void disturb(const Written& cells, const Rows& rows, const Stream& stream, uint64_t k, int threads);
Status redraw(const PlacedUpdate& args, const Written& cells, int64_t block_rows, int threads);

// Counted pulses: line t is column columns[t], all different, [rows][count] whole numbers of signed
// pulses, n > 0 raises the weight. args: w, pairs, sizes, stream, fidelity (strict; expected:
// without noise; all others are exact); line t draws as number args.k + t.
struct CountedLines {
  const int32_t* columns;
  const float* counts;
  int64_t count;
};
// Whether all are whole numbers up to kMostCounted; most [count + 16]: the largest of every line.
bool counts_whole(const CountedLines& lines, int64_t rows, float* most);
// += pulses, and the time that they take: every line is pulsed until its last row is done.
void count_fired(const CountedLines& lines, int64_t rows, const float* most, int64_t* fired);
void pulse_counted(const PlacedUpdate& args, const CountedLines& lines, const float* most,
                   int device, const float* params, int threads);
void pulse_ideal(const PlacedUpdate& args, const CountedLines& lines, float granularity);
// Write noise anew where they came, by the number of the line.
void rewrite(const PlacedUpdate& args, const CountedLines& lines, const Written& cells,
             int threads);

// Converters of one-hot reads, see transfer.cpp. args: w: [rows][batch] values, y: [rows][batch].
void convert(const PlacedRead& args, const Chain& chain, int threads);

// Columns that were read, counted in a digital buffer of [rows][cols]; see buffered.cpp:
//   h = keep held + rate sign (z - rho), n = trunc(h) within +-most, held = h - spent n (forget:
//   momentum h where n is not 0), mean += beta (z - mean)
struct Buffered {
  float *held, *mean;                     // [rows][cols]; mean: nullptr: neither mean nor rho
  const float *rho, *values;              // values: [rows][count], of columns from `column` on
  const float *sign_columns, *sign_rows;  // [cols], [rows]; sign_rows: nullptr: 1
  float* pulses;                          // [rows][count]
  int64_t rows, cols, column, count;
  float rate, most, keep, momentum, spent, beta;
  bool forget;
};
void count_buffered(const Buffered& args, int threads);

// No NaN and no infinity.
bool is_finite(const float* values, int64_t count);
// Patches of an image into rows, and the sum of rows into an image, see core/unfold.h. store: every
// element of the image comes once and need not be cleared before.
void unfold(const UnfoldArgs& args, int threads);
void fold(const UnfoldArgs& args, bool store, int threads);

// Standard normals of `kInitialisation`, one per crosspoint.
void initial_normals(const Stream& stream, const Rows& rows, float* out, int threads);

}  // namespace pulseline::cpu
