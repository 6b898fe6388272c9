// One call of the update: its workspace and the sequence of its launches.
#include <algorithm>

#include "cuda/update.h"

namespace pulseline::cuda {
namespace {

// Hands out parts of the workspace, or only counts them.
struct Room {
  unsigned char* base;
  size_t used = 0;
  template <class T>
  void take(T*& part, int64_t count) {
    part = reinterpret_cast<T*>(base ? base + used : nullptr);
    used += (size_t(count) * sizeof(T) + 255) & ~size_t(255);
  }
};

// Most slots of a train: `manage` exceeds the desired length only by a rule that no sample enters.
int32_t most_words(const TrainConfig& c) {
  int64_t bl = c.desired_bl;
  if (!c.update_bl_management && !c.fixed_bl) {
    const double down = double(c.lr) / double(c.granularity) + 2.0;
    bl = down > double(bl) ? int64_t(down) : bl;
  }
  return int32_t(ceil_div(bl, int64_t(kSlotsPerWord)));
}

}  // namespace

size_t lay_out(Task& t, void* base) {
  const UpdateArgs& a = t.args;
  Room room{static_cast<unsigned char*>(base)};
  t.padded_cols = round_up(a.cols, kPadColumns);
  t.padded_rows = round_up(a.rows, kPadRows);
  t.words = most_words(a.train);
  t.slice_samples = t.words < kSliceWords ? kSliceWords / t.words : 1;
  t.slices = int32_t(ceil_div(a.batch, int64_t(t.slice_samples)));
  const int64_t train_words = a.batch * t.words;
  room.take(t.status, 2);
  room.take(t.trains, a.batch);
  if (a.fidelity == kExpected) return room.used;
  room.take(t.train_words, train_words);
  if (a.fidelity == kStrict) room.take(t.slot_keys, train_words * kSlotsPerWord);
  int64_t samples = t.slice_samples;
  // Steps: as many as if every sample were a group of its own.
  const int64_t steps = ceil_div(int64_t(t.words), int64_t(kStepWords));  // of a sample
  if (a.fidelity == kGrouped) {  // the last group of a slice may reach beyond it
    const int64_t asked = a.group_size > 0 ? a.group_size : kGroupSamples;
    samples += (asked < kGroupSamples ? asked : kGroupSamples) - 1;
    room.take(t.spans, a.batch * steps * kStepWords);
    room.take(t.shifts, train_words);
    room.take(t.groups, a.batch);
    room.take(t.steps, a.batch * steps);
    room.take(t.slice_step, t.slices + 1);
  }
  if (a.fidelity == kMoments) {
    const int64_t all = round_up(a.batch, int64_t(kGroupSamples));
    t.moment_samples = int32_t(all < kMomentSamples ? all : kMomentSamples);
    room.take(t.moment_factors, 3 * t.moment_samples / 2);
  }
  samples = samples < a.batch ? samples : a.batch;
  int64_t words = samples * t.words, draws = words;
  if (a.fidelity == kGrouped) {
    draws = samples * steps;
    words = 2 * draws * kStepWords;  // signs apart
  }
  if (a.noise == kLowRank && (a.fidelity == kExact || a.fidelity == kGrouped)) {
    room.take(t.rank_columns, draws * kRankWords * t.padded_cols);
    room.take(t.rank_rows, draws * kRankWords * t.padded_rows);
  }
  if (a.fidelity == kMoments) words = std::max(words, int64_t(t.moment_samples / 2));
  room.take(t.column_words, words * t.padded_cols);
  room.take(t.row_words, words * t.padded_rows);
  return room.used;
}

namespace {

// Everything behind the plan.
cudaError_t launch_pulses(const Call& c) {
  if (!anything(c)) return cudaSuccess;
  const int32_t fidelity = c.tasks[0].args.fidelity;
  if (fidelity == kExpected) return launch_expected(c);
  const bool grouped = fidelity == kGrouped, moments = fidelity == kMoments;
  const bool low_rank = c.tasks[0].rank_rows != nullptr;
  if (grouped) PL_TRY(launch_groups(c));
  const int slices = int(most(c, [](const Task& t) { return t.slices; }));
  const bool counts = most(c, [](const Task& t) { return t.args.fired != nullptr; }) != 0;
  for (int slice = 0; slice < slices && (!moments || counts); ++slice) {
    PL_TRY(grouped ? launch_packed_trains(c, slice) : launch_trains(c, slice));
    if (low_rank) PL_TRY(launch_ranks(c, slice));
    if (counts) PL_TRY(launch_count(c, slice));
    if (moments) continue;  // only counted
    PL_TRY(grouped               ? launch_grouped(c, slice)
           : fidelity == kStrict ? launch_strict(c, slice)
           : low_rank            ? launch_exact_ranks(c, slice)
                                 : launch_exact(c, slice));
  }
  return moments ? launch_moments(c) : cudaSuccess;
}

}  // namespace

cudaError_t launch_update(const Call& c) {
  PL_TRY(launch_plan(c));
  PL_TRY(launch_pulses(c));
  return launch_advance(c);
}

}  // namespace pulseline::cuda
