#pragma once
// Pulses really fired: in every slot each firing row meets each firing column. Counted from the
// trains of a slice, outside the hot loops, and only when asked.
#include <cstdint>

#include "cpu/kernels.h"

namespace pulseline::cpu {

inline int64_t coincidences(const UpdateJob& job) {
  int64_t total = 0;
  for (int64_t s = 0; s < job.count; ++s) {
    const uint32_t* words = job.column_words + s * job.padded_cols;
    uint32_t columns[kSlotsPerWord] = {};
    for (int slot = 0; slot < job.train_words[s].slots; ++slot) {
      uint32_t n = 0;
      for (int64_t j = 0; j < job.padded_cols; ++j) n += words[j] >> slot & 1u;
      columns[slot] = n;
    }
    for (int64_t i = 0; i < job.args->rows; ++i)
      for (uint32_t w = job.row_words[i * job.count + s]; w; w &= w - 1)
        total += columns[__builtin_ctz(w)];
  }
  return total;
}

inline void count_fired(const UpdateJob& job) {
  if (!job.args->fired) return;
  job.args->fired[0] += coincidences(job);
  for (int64_t s = 0; s < job.count; ++s) job.args->fired[1] += job.train_words[s].slots;
}

}  // namespace pulseline::cpu
