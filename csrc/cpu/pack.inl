// The packed layout of trains: slots of consecutive sub-samples side by side in one word, with the
// signs of x and d as words of their own. With short trains one word then counts many samples.
// Only counts matter here, so the layout changes no bit. Included by kernels.inl.

namespace pulseline::cpu {
namespace {

PL_HD uint32_t slot_mask(const Sample& s, const Place& at) {
  return ((1u << s.slots) - 1u) << at.shift;
}

void pack_columns(const UpdateJob& job, int64_t group0, int64_t group1) {
  const int64_t groups = job.padded_cols / kGroup;
  for (int64_t g = group0; g < group1; ++g)
    for (int v = 0; v < kGroup / kLanes; ++v) {
      const int64_t j = g * kGroup + v * kLanes;
      for (int64_t s = 0; s < job.count;) {
        const int32_t word = job.places[s].word;
        U slots(0u), signs(0u);
        for (; s < job.count && job.places[s].word == word; ++s) {
          const Place at = job.places[s];
          const M negative = load_mask(job.column_up[0] + s * groups + g, v);
          slots = slots | load(job.column_words + s * job.padded_cols + j) << at.shift;
          signs = signs | select(negative, U(slot_mask(job.samples[s], at)), U(0u));
        }
        store(job.packed_columns + word * job.padded_cols + j, slots);
        store(job.packed_column_signs + word * job.padded_cols + j, signs);
      }
    }
}

void pack_rows(const UpdateJob& job, int64_t group0, int64_t group1) {
  for (int64_t i = group0 * kGroup; i < group1 * kGroup; ++i)
    for (int64_t s = 0; s < job.count;) {
      const int32_t word = job.places[s].word;
      uint32_t slots = 0, signs = 0;
      for (; s < job.count && job.places[s].word == word; ++s) {
        const Place at = job.places[s];
        slots |= job.row_words[i * job.count + s] << at.shift;
        if (job.row_negative[i * job.words + s / 64] >> (s % 64) & 1u)
          signs |= slot_mask(job.samples[s], at);
      }
      job.packed_rows[i * job.packed + word] = slots;
      job.packed_row_signs[i * job.packed + word] = signs;
    }
}

// Coincidences of a group at one row and 32 columns, all and those that go up; false: none.
struct GroupCounts {
  U all[kGroup / kLanes], up[kGroup / kLanes];
  bool touched = false;

  PL_HD GroupCounts() {
#pragma GCC unroll kUnroll
    for (int v = 0; v < kGroup / kLanes; ++v) all[v] = up[v] = U(0u);
  }
  PL_HD void add_packed(const UpdateJob& job, const Group& g, int64_t i, int64_t j) {
    for (int64_t w = g.word0; w < g.word1; ++w) {
      const uint32_t row = job.packed_rows[i * job.packed + w];
      if (!row) continue;
      const U slots(row), signs(job.packed_row_signs[i * job.packed + w]);
      const uint32_t* words = job.packed_columns + w * job.padded_cols + j;
      const uint32_t* negative = job.packed_column_signs + w * job.padded_cols + j;
#pragma GCC unroll kUnroll
      for (int v = 0; v < kGroup / kLanes; ++v) {
        const U both = load(words + v * kLanes) & slots;
        all[v] = all[v] + popcount(both);
        up[v] = up[v] + popcount(both & (load(negative + v * kLanes) ^ signs));
      }
    }
    U any_lane = all[0];
    for (int v = 1; v < kGroup / kLanes; ++v) any_lane = any_lane | all[v];
    touched = any(any_lane);
  }
  PL_HD void add_samples(const UpdateJob& job, const Group& g, const Hits& hits, int64_t i,
                         int64_t j) {
    const int64_t groups = job.padded_cols / kGroup;
    for (int64_t q = g.first / 64; q * 64 < g.last; ++q) {
      const uint64_t negative = job.row_negative[i * job.words + q];
      for (uint64_t m = hits.at(q, 1) & window(g, q); m; m &= m - 1) {
        const int bit = __builtin_ctzll(m);
        const int64_t s = q * 64 + bit;
        const U row_word(job.row_words[i * job.count + s]);
        const uint32_t* words = job.column_words + s * job.padded_cols + j;
        const uint32_t* mask = job.column_up[negative >> bit & 1] + s * groups + j / kGroup;
        touched = true;
#pragma GCC unroll kUnroll
        for (int v = 0; v < kGroup / kLanes; ++v) {
          const U n = popcount(load(words + v * kLanes) & row_word);
          all[v] = all[v] + n;
          up[v] = up[v] + select(load_mask(mask, v), n, U(0u));
        }
      }
    }
  }
  // Bits of samples first..last in 64-bit word q.
  static PL_HD uint64_t window(const Group& g, int64_t q) {
    const int64_t low = g.first - q * 64, high = g.last - q * 64;
    if (high <= 0 || low >= 64) return 0;
    const uint64_t above = low <= 0 ? ~uint64_t(0) : ~uint64_t(0) << low;
    return high >= 64 ? above : above & ((uint64_t(1) << high) - 1);
  }
};

}  // namespace
}  // namespace pulseline::cpu
