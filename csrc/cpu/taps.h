#pragma once
// Taps of an update (placed.h): which of them fall into a slice of train words, by groups of
// columns, where the kernels meet them. A tap belongs to the slice that ends its sample.
#include "cpu/kernels.h"
#include "cpu/scratch.h"

namespace pulseline::cpu {

// Taps first .. last of columns that stay as they are stored.
inline void copy_taps(const PlacedUpdate& a, int64_t first, int64_t last) {
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t t = first; t < last; ++t)
      a.taps.values[i * a.taps.count + t] = a.w[i * a.cols + a.taps.at[2 * t + 1]];
}

class SliceTaps {
 public:
  SliceTaps(const PlacedUpdate& a, int64_t padded_cols, Scratch& scratch)
      : a_(a), groups_(padded_cols / kGroup) {
    if (a.taps.count == 0) return;
    taps_ = scratch.take<SliceTap>(a.taps.count);
    first_ = scratch.take<int64_t>(groups_ + 2);
    words_ = scratch.take<int32_t>(padded_cols);
    once_ = scratch.take<uint8_t>(groups_);
  }
  // Hands the job the taps behind samples before `end`, the last one that its train words finish.
  void take(UpdateJob& job, int64_t end) {
    job.taps = nullptr;
    int64_t last = next_;
    while (last < a_.taps.count && sample(last) < end) ++last;
    if (last == next_) return;
    // Counted, then summed: first_[g + 1] is where the next tap of group g goes.
    for (int64_t g = 0; g < groups_ + 2; ++g) first_[g] = 0;
    for (int64_t t = next_; t < last; ++t) ++first_[group(t) + 2];
    for (int64_t g = 0; g < groups_; ++g) first_[g + 2] += first_[g + 1];
    for (int64_t j = 0; j < groups_ * kGroup; ++j) words_[j] = -1;
    for (int64_t g = 0; g < groups_; ++g) once_[g] = 1;
    int64_t before = 0;
    for (int64_t t = next_; t < last; ++t) {
      before = words_until(job, sample(t), before);
      if (words_[column(t)] >= 0) once_[group(t)] = 0;
      words_[column(t)] = int32_t(before);
      taps_[first_[group(t) + 1]++] = {int32_t(t), column(t), int32_t(before)};
    }
    next_ = last;
    job.taps = taps_;
    job.tap_first = first_;
    job.tap_words = words_;
    job.tap_once = once_;
  }
  // Those that are left: nothing moves any more.
  void rest() {
    copy_taps(a_, next_, a_.taps.count);
    next_ = a_.taps.count;
  }

 private:
  int32_t sample(int64_t t) const { return a_.taps.at[2 * t]; }
  int32_t column(int64_t t) const { return a_.taps.at[2 * t + 1]; }
  int64_t group(int64_t t) const { return column(t) / kGroup; }
  // Train words of samples up to this one; of expected, which has none, samples.
  static int64_t words_until(const UpdateJob& job, int32_t sample, int64_t from) {
    if (!job.train_words) return sample + 1;
    while (from < job.count && job.train_words[from].source <= sample) ++from;
    return from;
  }

  const PlacedUpdate& a_;
  int64_t groups_, next_ = 0;
  SliceTap* taps_ = nullptr;
  int64_t* first_ = nullptr;
  int32_t* words_ = nullptr;
  uint8_t* once_ = nullptr;
};

}  // namespace pulseline::cpu
