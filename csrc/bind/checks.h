#pragma once
// What no field of the settings can tell alone: an operator's settings together, and its memory.
// Both backends ask here, before anything is written.
#include <vector>

#include "bind/layout.h"

namespace pulseline::bind {

inline void check_amount(const char* name, double value, const Limit& limit = kPositive) {
  if (!limit.hold(value)) refuse_value(name, text(value), limit);
}
// How many blocks a matrix has; cols are those of one.
template <class Key>
int64_t blocks_of(int64_t rows, const Key& key) {
  if (key.block_rows == 0) return 1;
  if (rows % key.block_rows)
    refuse("block_rows is " + std::to_string(key.block_rows) + " of a matrix of " +
           std::to_string(rows) + " rows; use a divisor");
  return rows / key.block_rows;
}

// ---- reads ----

inline void check_step(const char* side, double resolution, double bound) {
  const Converter c = make_converter(float(resolution), float(bound));
  if (resolution > 0 && !(c.step >= kSmallest && c.inv_step >= kSmallest && c.step <= kLargest))
    refuse(std::string(side) + "_res is " + text(resolution) + " of " + side + "_bound " +
           text(bound) + "; use a bound > 0 whose steps are float32 numbers");
}
inline void check_read(const ReadSettings& s) {
  check_step("inp", s.inp_res, s.inp_bound);
  check_step("out", s.out_res, s.out_bound);
}
inline void check_plain(const ReadSettings& s) {
  check_read(s);
  if (s.noise_management > kAbsMax)
    refuse("noise_management is " + text(s.noise_management) + " in a plain read; use read_chain_");
}
inline void check_chain(const ReadSettings& s, const ConverterSettings& c) {
  check_read(s);
  if (s.noise_management == kConstant && !(c.nm_thres > 0))
    refuse("nm_thres is " + text(c.nm_thres) + "; use the constant alpha > 0");
  if (c.ir_drop != kNoDrop && !(c.wire_resistance >= kSmallest))
    refuse("wire_resistance is " + text(c.wire_resistance) + "; use a number from " +
           text(kSmallest) + " to " + text(kLargest) + ", or no ir_drop");
}
// What blocks would share: the wires of a tile, the average of an array.
inline void check_chain_blocks(const ReadSettings& s, const ConverterSettings& c, int64_t blocks) {
  const std::string use = " with " + std::to_string(blocks) + " blocks; use ";
  if (blocks > 1 && c.ir_drop != kNoDrop)
    refuse("ir_drop is on" + use + "ir_drop=\"none\", or a layer of one group");
  if (blocks > 1 && s.noise_management == kAverage)
    refuse("noise_management is average_abs_max" + use + "abs_max, or a layer of one group");
}

// ---- updates ----

inline void check_trains(double lr, const PulseSettings& p, const UpdateKey& key) {
  if (!kPositive.hold(lr)) refuse("lr is " + text(lr) + "; use a finite learning rate >= 0");
  const bool short_trains = p.fixed_bl != 0 || p.update_bl_management != 0;
  if (!short_trains && lr > p.granularity * kMostSlots)
    refuse("lr is " + text(lr) + ", a train of more than " + std::to_string(kMostSlots) +
           " slots of " + text(p.granularity) +
           "; lower it, or switch fixed_bl or update_bl_management on");
  if (!(float(lr) / float(p.granularity) <= FLT_MAX))
    refuse("lr is " + text(lr) + ", more than " + text(kLargest) + " steps of " +
           text(p.granularity) + "; lower it");
  if (p.noise != kIid && key.fidelity != kExact && key.fidelity != kGrouped)
    refuse("noise is lowrank with fidelity " + std::to_string(key.fidelity) +
           "; use exact or grouped, which draw it");
  const bool relaxed = key.fidelity == kGrouped || key.fidelity == kMoments;
  if (relaxed && (p.granularity > kMostStep || p.coarseness > 1))
    refuse("granularity is " + text(p.granularity) + ", " + text(p.coarseness) +
           " of the weight range, where pulses cannot be joined; use fidelity strict or exact");
}

inline void check_params(const std::vector<float>& params) {
  for (size_t n = 0; n < params.size(); ++n)
    if (!kFinite.hold(double(params[n])))  // a name is made of no number that holds
      check_amount(("params[" + std::to_string(n) + "]").c_str(), params[n], kFinite);
}

// Whether a device model (< 0: the ideal one) stores slopes.
inline bool has_slopes(int device) {
  constexpr bool kSlopes[] = {
#define PULSELINE_SLOPES(D) D::kSlopes,
      PULSELINE_DEVICES(PULSELINE_SLOPES)
#undef PULSELINE_SLOPES
  };
  return device >= 0 && kSlopes[device];
}

// device: of the pairs, < 0: there are none. No pairs at all: they are drawn anew.
inline void check_update(const UpdateAddresses& at, const UpdateSizes& n, double lr,
                         const PulseSettings& pulses, const UpdateKey& key,
                         const std::vector<float>& params, int device) {
  const int64_t size = 4 * n.rows * n.cols;
  const bool none = device < 0 || (!at.step && !at.slope && !at.bound), flat = !has_slopes(device);
  check_trains(lr, pulses, key);
  check_params(params);
  const int64_t blocks = blocks_of(n.rows, key);
  check_memory({{"weight", at.w, size}, {"counters", at.counter, 8}, {"fired", at.fired, 16, true}},
               {{"step", none ? 0 : at.step, size, none},
                {"slope", none || flat ? 0 : at.slope, size, none || flat},
                {"bound", none ? 0 : at.bound, size, none},
                {"x", at.x, 4 * n.batch * n.cols * blocks},
                {"d", at.d, 4 * n.batch * n.rows}});
}

constexpr int64_t kMostTaps = int64_t(1) << 30;  // of a call: kernels count them in 32 bits

// Rows of sample and column, in the order of samples.
inline void check_taps(const int32_t* taps, int64_t count, int64_t batch, int64_t cols) {
  for (int64_t t = 0; t < count; ++t) {
    const int64_t sample = taps[2 * t], column = taps[2 * t + 1];
    const bool there = 0 <= sample && sample < batch && 0 <= column && column < cols;
    if (there && (t == 0 || taps[2 * t - 2] <= sample)) continue;
    const std::string at = "taps[" + std::to_string(t) + "] is sample " + std::to_string(sample) +
                           ", column " + std::to_string(column);
    if (there) refuse(at + " behind a later sample; sort taps by sample");
    refuse(at + " of " + std::to_string(batch) + " samples and " + std::to_string(cols) +
           " columns; use one that there is");
  }
}
// Refuses what a cut batch alone can do, memory of taps (on the host) and of their values, and taps
// of samples or columns that there are not.
inline void check_tapped(const UpdateAddresses& at, const UpdateSizes& n, const UpdateKey& key,
                         int device, uint64_t taps, int64_t count, uint64_t tapped) {
  if (count > kMostTaps)
    refuse("there are " + std::to_string(count) + " taps; use at most " +
           std::to_string(kMostTaps) + " in a call");
  if (blocks_of(n.rows, key) != 1)
    refuse("taps are given of a matrix of " + std::to_string(blocks_of(n.rows, key)) +
           " blocks; use a layer of one group");
  if (device >= 0 && (key.fidelity == kGrouped || key.fidelity == kMoments))
    refuse("fidelity is " + std::to_string(key.fidelity) +
           ", which joins samples; cut the update at taps, or use exact, strict or expected");
  const int64_t size = 4 * n.rows * n.cols;
  check_memory({{"tapped", tapped, 4 * n.rows * count},
                {"weight", at.w, size},
                {"counters", at.counter, 8},
                {"fired", at.fired, 16, true}},
               {{"taps", taps, 8 * count},
                {"step", at.step, size, true},
                {"slope", at.slope, size, true},
                {"bound", at.bound, size, true},
                {"x", at.x, 4 * n.batch * n.cols},
                {"d", at.d, 4 * n.batch * n.rows}});
  check_taps(pointer<const int32_t>(taps), count, n.batch, n.cols);
}

// ---- transfers ----

// Distinct columns, a number for each line, memory.
inline void check_counted(const CountedAddresses& at, const UpdateSizes& n, int64_t number,
                          int device, const std::vector<float>& params, double deviation,
                          const UpdateKey& key) {
  const int64_t size = 4 * n.rows * n.cols, lines = n.batch;
  const bool none = device < 0 || (!at.step && !at.slope && !at.bound), flat = !has_slopes(device);
  check_params(params);
  check_amount("deviation", deviation);
  if (blocks_of(n.rows, key) != 1)
    refuse("single crosspoints of a matrix of " + std::to_string(blocks_of(n.rows, key)) +
           " blocks are pulsed; use a layer of one group");
  if (number < 0)
    refuse("number is " + std::to_string(number) + "; use that of the first line, from 0 on");
  check_memory(
      {{"weight", at.w, size}, {"fired", at.fired, 16, true}, {"visible", at.visible, size, true}},
      {{"step", none ? 0 : at.step, size, none},
       {"slope", none || flat ? 0 : at.slope, size, none || flat},
       {"bound", none ? 0 : at.bound, size, none},
       {"columns", at.columns, 4 * lines},
       {"counts", at.counts, 4 * n.rows * lines}});
  std::vector<bool> seen(static_cast<size_t>(n.cols));
  const auto* columns = pointer<const int32_t>(at.columns);
  for (int64_t t = 0; t < lines; ++t) {
    const int64_t j = columns[t];
    const auto what = [&] {  // a sentence that is wanted rarely
      return "columns[" + std::to_string(t) + "] is " + std::to_string(j);
    };
    if (j < 0 || j >= n.cols)
      refuse(what() + " of " + std::to_string(n.cols) + " columns; use one that there is");
    if (seen[size_t(j)]) refuse(what() + " as an earlier one; use every column once in a call");
    seen[size_t(j)] = true;
  }
}
[[noreturn]] inline void refuse_counts(const float* counts, int64_t rows, int64_t lines) {
  for (int64_t n = 0; n < rows * lines; ++n) {
    const Limit limit = whole(-double(kMostCounted), double(kMostCounted));
    if (!limit.hold(double(counts[n])))
      refuse_value("counts[" + std::to_string(n / lines) + ", " + std::to_string(n % lines) + "]",
                   text(counts[n]), limit);
  }
  refuse("counts hold what is no whole number; use whole numbers");
}

// A read of one driven line; what is not local to a crosspoint is refused.
inline void check_transfer(const ReadSettings& s, const ConverterSettings& c, int64_t number) {
  check_read(s);
  if (c.ir_drop != kNoDrop)
    refuse(
        "ir_drop is on, where a crosspoint depends on all others; use ir_drop=\"none\" for "
        "transfers, or read the column");
  if (number < 0)
    refuse("number is " + std::to_string(number) + "; use that of the first read, from 0 on");
}
inline ReadArgs transfer_args(const DrawKey& key, const ReadSettings& s) {
  ReadArgs a = read_args(ReadKey{key.seed, key.tile_id, kTransferOutput, 1, 1, 0, 0}, s);
  a.input_purpose = kTransferOutput;  // apart by the draw
  return a;
}
inline Chain transfer_chain(const ReadArgs& a, const ConverterSettings& s) {
  Chain c = chain_args(a, s, nullptr);
  c.rounding_purpose = kTransferRounding;
  return c;
}

// ---- between pulses ----

struct Between {  // retain and reset; no pairs and words at all: they are drawn anew
  uint64_t w, step, bound, words;
  int64_t rows, cols;
};
inline void check_retain(const Between& at, double amount, int64_t k) {
  const int64_t size = 4 * at.rows * at.cols;
  const bool none = !at.step && !at.bound && !at.words;
  check_amount("the amount", amount);
  if (k < 0) refuse("k is " + std::to_string(k) + "; use the number of the event, from 0 on");
  check_memory({{"weight", at.w, size}}, {{"step", at.step, size, none},
                                          {"bound", at.bound, size, none},
                                          {"words", at.words, 2 * size, none}});
}
// The checked arguments of an event or a reset.
inline RetentionArgs retention_args(const Between& at, bool reset, double amount, int64_t k,
                                    const DrawKey& key) {
  check_retain(at, amount, k);
  const auto* words = pointer<const uint32_t>(at.words);
  return {pointer<float>(at.w),
          pointer<const uint32_t>(at.step),
          pointer<const uint32_t>(at.bound),
          words,
          words + at.rows * at.cols,
          0,
          at.rows,
          at.cols,
          stream_of(key),
          uint64_t(k),
          reset ? kReset : kDiffusion,
          float(amount)};
}
// step: 0: drawn anew.
inline void check_disturb(uint64_t hidden, uint64_t step, uint64_t visible, int64_t crosspoints,
                          double deviation, uint64_t counters) {
  const int64_t size = 4 * crosspoints;
  check_amount("deviation", deviation);
  check_memory({{"visible", visible, size}},
               {{"hidden", hidden, size}, {"step", step, size, true}, counters_at(counters)});
}
// at.w: what is read.
inline void check_redraw(const UpdateAddresses& at, const UpdateSizes& n, double lr,
                         const PulseSettings& pulses, const UpdateKey& key, uint64_t hidden,
                         double deviation) {
  const int64_t size = 4 * n.rows * n.cols;
  check_trains(lr, pulses, key);
  const int64_t blocks = blocks_of(n.rows, key);
  check_amount("deviation", deviation);
  check_memory({{"visible", at.w, size}}, {{"hidden", hidden, size},
                                           {"step", at.step, size, true},
                                           {"counters", at.counter, 8},
                                           {"x", at.x, 4 * n.batch * n.cols * blocks},
                                           {"d", at.d, 4 * n.batch * n.rows}});
}

}  // namespace pulseline::bind
