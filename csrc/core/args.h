#pragma once
// POD argument structs: they cross into a kernel by value, on the CPU and on the GPU.
#include <cstdint>

#include "core/converter.h"
#include "core/pulses.h"

namespace pulseline {

enum Fidelity : int32_t { kStrict = 0, kExact = 1, kExpected = 2, kGrouped = 3, kMoments = 4 };

// Cycle noise of exact and grouped, see rng.h. Low rank: sigma becomes sigma kRankUnit, xi the sum.
enum Noise : int32_t { kIid = 0, kLowRank = 1 };

constexpr int64_t kMostCounted = int64_t(1) << 20;  // counted pulses of a crosspoint in one call

constexpr int64_t kGroupSamples = 256;  // most samples that are relaxed together
constexpr float kGroupTravel = 0.3f;    // most expected steps of a group, as a part of the range

// W[rows, cols] <- W - lr d x^T realised by pulses, samples in order.
struct UpdateArgs {
  float* w;  // [rows][cols]
  // [rows][cols] bf16 pairs, see devices/pulsed.h; slope: of models that have one. All nullptr: a
  // crosspoint is drawn anew, with the bits that `construct` would have stored.
  const uint32_t *step, *slope, *bound;
  const float *x, *d;  // [batch][cols], [batch][rows]
  int64_t rows, cols, batch;
  Stream stream;
  uint64_t k;  // running number of the first sample
  const int64_t*
      counter;  // CUDA: in the memory of the GPU; k is then what to add. nullptr: k is it
  TrainConfig train;
  int64_t* fired;  // += coincidences, slots; nullptr: not counted
  int32_t fidelity, noise;
  int32_t group_size;  // grouped: most samples of a group
  float coarseness;    // granularity / (w_max - w_min)
};

// Between pulses, see retention.h. amount: log2 of the drift (kDiffusion) or std (kReset).
struct RetentionArgs {
  float* w;                                    // [rows][cols]
  const uint32_t *step, *bound, *fade, *walk;  // [rows from `first` on][cols]; nullptr: drawn anew
  int64_t first, rows, cols;
  Stream stream;
  uint64_t k;
  uint32_t purpose;
  float amount;
  int64_t col0 = 0;  // CPU: first column of the array that the rows have
};

struct ReadArgs {
  const float* w;  // [rows][cols]
  const float* x;  // [batch][inputs]
  float* y;        // [batch][outputs]
  int64_t rows, cols, batch;
  int32_t transposed;         // 0: y = W x, inputs = cols; 1: y = W^T x, inputs = rows
  int64_t tile_in, tile_out;  // physical tile, in inputs and outputs of this direction
  Stream stream;
  uint64_t k;
  const int64_t* counter;                  // as above
  uint32_t output_purpose, input_purpose;  // whose draws
  Converter dac, adc;
  float input_noise, output_noise, weight_noise;
  int32_t noise_management;  // 0 none, 1 largest magnitude of the input
  int32_t max_rounds;        // bound management: extra rounds for saturated samples
  float out_scale;
};

// Running number of the first sample of a call.
template <class Args>
PL_HD uint64_t first_number(const Args& a) {
  return a.counter ? uint64_t(*a.counter) + a.k : a.k;
}

}  // namespace pulseline
