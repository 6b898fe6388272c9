#pragma once
// What an instruction set provides: one table of leaf kernels, filled by kernels.inl once per ISA.
// Everything else in such an object has internal linkage and uses no std:: templates: an inline
// function in a shared header would let the linker keep one ISA's copy for everybody.
#include "core/args.h"
#include "core/parameters.h"
#include "core/read.h"
#include "core/relax.h"
#include "cpu/placed.h"

namespace pulseline::cpu {

enum Device : int {
#define PULSELINE_ENUM(D) k##D,
  PULSELINE_DEVICES(PULSELINE_ENUM)
#undef PULSELINE_ENUM
      kDevices
};

constexpr int kGroup = 32;   // columns or rows handled together
constexpr int kSlice = 512;  // train words that are held at once

struct Group {           // train words that are relaxed together
  int64_t first, last;   // within the slice
  int64_t word0, word1;  // its words in the packed layout
  Keys noise;
  uint64_t k;  // running number of its first sample
};

struct PackedPlace {  // of a train word's slots in the packed layout
  int32_t word, shift;
};

struct SliceTap {          // see Taps
  int32_t number;          // in the call
  int32_t column, before;  // before: train words (expected: samples) of the slice that come first
};

struct UpdateJob {
  const PlacedUpdate* args;
  const ParameterKeys* drawn;  // crosspoints are drawn with these; nullptr: they are stored
  const Train* trains;         // expected: [batch]
  const TrainWord* train_words;
  int64_t count, words;  // train words; 64-bit words that hold one bit of each
  int64_t padded_cols, padded_rows;
  uint32_t* column_words;  // [count][padded_cols]
  uint32_t* column_up[2];  // [count][padded_cols / 32] bits: raises the weight if d > 0, < 0
  uint64_t* column_hits;   // [padded_cols / 32][words] any slot set in the group
  uint32_t* row_words;     // [padded_rows][count]
  uint64_t *row_hits, *row_negative;  // [padded_rows][words]
  const Keys* slot_keys;              // strict: [count][31]
  const Group* groups;                // grouped: [group_count]; moments: one
  int64_t group_count;
  // Packed layout of grouped: slots of consecutive train words share a word, signs beside them.
  const PackedPlace* places;  // [count]; nullptr: no train words share a word
  int64_t packed_words;
  bool packed;                                     // whether it is the cheaper one
  uint32_t *packed_columns, *packed_column_signs;  // [packed_words][padded_cols]
  uint32_t *packed_rows, *packed_row_signs;        // [padded_rows][packed_words]
  int64_t merged;                                  // moments: samples of the group
  float* column_factors[4];  // moments: [merged][padded_cols] signed count and spread, magnitudes
  float* row_factors[4];     // moments: [padded_rows][merged] the same, normalised
  // Low-rank noise of every train word (exact) or group (grouped): pairs of bf16 factors, written
  // where the line fires. Both nullptr: noise is iid.
  uint32_t* rank_columns;  // [count or group_count][kRankWords][padded_cols]
  uint32_t* rank_rows;     // [padded_rows][count or group_count][kRankWords]
  // Taps of the slice by groups of columns, those of group g from tap_first[g] to tap_first[g + 1].
  // nullptr: none.
  const SliceTap* taps;
  const int64_t* tap_first;  // [padded_cols / 32 + 1]
  // Train words (expected: samples) before the tap of a column, -1: none; of groups whose columns
  // are tapped once at most.
  const int32_t* tap_words;  // [padded_cols]
  const uint8_t* tap_once;   // [padded_cols / 32]
};

// Counted pulses, see counted.cpp.
struct CountedRun {  // lines of neighbouring columns
  int64_t column, line, count;
};
struct CountedJob {
  UpdateJob cells;  // args and drawn
  const CountedRun* runs;
  int64_t run_count;
  const float* counts;      // [rows][lines]
  const uint32_t* keys[2];  // [draws][stride] of every line
  int64_t lines, stride;
  int64_t first, draws;  // of this pass
  int32_t each;          // pulses of a draw
  bool noisy;
};
using CountedRows = void (*)(const CountedJob&, const void* device, int64_t row0, int64_t row1);

using UpdateRows = void (*)(const UpdateJob&, const void* device, int64_t row0, int64_t row1);

// One physical tile's segment of inputs, a panel of outputs, a run of samples.
struct ReadPanel {
  const PlacedRead* args;
  const float* input;  // [samples][stride] after the DAC
  int64_t stride, samples;
  int64_t in0, in1, out0, out1;  // up to KernelTable::panel outputs; one transposed sample: more
  const float* scale;            // [samples] factor of the converted output
  const float* deviation;        // [samples] noise std of an output
  const Keys* keys;              // [samples]
  float* y;                      // [samples][y_stride], column 0 = output 0
  int64_t y_stride;
  bool first;          // y = q scale, else y = fma(q, scale, y)
  uint8_t* saturated;  // [samples], set to 1; nullptr: not asked
  float* sums;         // scratch [samples][panel]
  float* packed;       // scratch [kPackedInputs][panel]
};
constexpr int64_t kPackedInputs = 512;

struct InputJob {  // one sample through the DACs of all segments of a row block
  const PlacedRead* args;
  const float* x;
  float* q;          // converted input
  float alpha_beta;  // division before the DAC
  Keys noise;
  float* deviation;  // one per segment, `deviation_stride` apart
  int64_t deviation_stride;
};

struct ChainInput {  // a sample through the DACs of one tile, with options
  const PlacedRead* args;
  const Chain* chain;
  const float* x;
  float *q[2], *square[2];  // per pass: converted input, its square (pcm)
  float norm[2];            // out: |q|^2 of the tile
  float alpha_beta;
  Keys noise[2], rounding;
  int64_t in0, in1;
  int passes;  // 1 or 2
};

struct ChainOutput {  // a sample through the ADCs of one tile, with options
  const PlacedRead* args;
  const Chain* chain;
  const float *sums[2], *squares[2];  // per pass: W q, |W| q^2 (pcm)
  float norm[2];
  const float *line_noise, *line_bend;  // per output; nullptr: the same for all, none
  Keys noise[2], rounding[2];
  float* converted;
  int64_t out0, outputs;
  int passes;
};

struct WriteNoiseJob {  // visible = hidden + deviation xi
  const float* hidden;
  const uint32_t* step;  // [rows from `first` on][cols], as last
  float* visible;
  int64_t cols;
  float deviation;
  Keys key;             // of all crosspoints
  const int32_t* last;  // or of keys[last], -1: left alone; nullptr: `key`
  const Keys* keys;
  int64_t first;
  int64_t row0, col0;  // of the array, see placed.h
};

struct ConstructJob {  // words of a crosspoint, [rows from `first` on][cols] each
  int64_t first, cols;
  ParameterKeys keys;
  uint32_t* out[3];  // step, slope (nullptr: left out), bound; or fade, walk of retention.h
  int64_t col0;      // of the array, see placed.h
};
using ConstructRows = void (*)(const ConstructJob&, const void* params, int64_t row0, int64_t row1);

struct NormalsJob {  // [rows from `first` on][cols]
  float* out;
  int64_t first, cols;
  Keys key;
  int64_t col0;  // of the array, see placed.h
};

struct OuterJob {  // w[row][col] += sum_b a[row][b] x[b][col], b in order, fma
  float* w;
  const float *a, *x;
  int64_t rows, cols, batch, a_stride, x_stride;
};

constexpr uint32_t kInfinity = 0x7f800000u;  // bits of a magnitude: from here on it is not finite

struct KernelTable {
  const char* isa;
  bool fused;     // reads sum by fma (baseline: multiply, then add)
  int64_t panel;  // outputs of a read panel
  // Bits of the largest magnitude; kInfinity and above: not finite.
  uint32_t (*absmax)(const float* v, int64_t n);
  int64_t (*above)(const float* v, int64_t n, float limit);  // how many magnitudes are
  void (*column_trains)(const UpdateJob&, int64_t group0, int64_t group1);
  void (*row_trains)(const UpdateJob&, int64_t group0, int64_t group1);
  void (*column_moments)(const UpdateJob&, int64_t group0, int64_t group1);
  void (*row_moments)(const UpdateJob&, int64_t group0, int64_t group1);
  void (*column_ranks)(const UpdateJob&, int64_t group0, int64_t group1);
  void (*row_ranks)(const UpdateJob&, int64_t group0, int64_t group1);
  UpdateRows exact[kDevices], strict[kDevices], expected[kDevices], grouped[kDevices],
      moments[kDevices];
  void (*prepare_input)(const InputJob&);
  void (*read_panel)(const ReadPanel&);
  void (*accumulate_outer)(const OuterJob&, int64_t row0, int64_t row1);
  void (*chain_input)(ChainInput&);
  bool (*chain_output)(const ChainOutput&);  // whether it saturates
  void (*chain_add)(float* y, const float* q, float scale, int64_t n, bool first);
  void (*retain)(const RetentionArgs&, Keys, int64_t row0, int64_t row1);
  void (*write_noise)(const WriteNoiseJob&, int64_t row0, int64_t row1);
  ConstructRows construct[kDevices], construct_retention;
  void (*initial_normals)(const NormalsJob&, int64_t row0, int64_t row1);
  UpdateRows mark_last;  // of the first row; the device is a pointer to int32_t [cols]
  CountedRows counted[kDevices];
  bool (*counts_whole)(const float* counts, int64_t lines, int64_t row0, int64_t row1, float* most);
};

#define PULSELINE_TABLES(X) X(baseline) X(avx2) X(avx512f) X(avx512)
extern const KernelTable table_baseline, table_avx2, table_avx512f, table_avx512;

const KernelTable& table();                      // the one in use
const KernelTable* find_table(const char* isa);  // nullptr: unknown or unsupported here
bool use_table(const char* isa);

}  // namespace pulseline::cpu
