// Counts of a group of samples, from either layout of the trains. Included by kernels.inl.

namespace pulseline::cpu {
namespace {

// Coincidences of a group at one row and GROUPS groups of columns, all and those that go up.
template <int GROUPS>
struct GroupCounts {
  static constexpr int kVectors = GROUPS * kGroup / kLanes;
  U all[kVectors], up[kVectors];

  PL_HD GroupCounts() {
#pragma GCC unroll kUnroll
    for (int v = 0; v < kVectors; ++v) all[v] = up[v] = U(0u);
  }
  PL_HD void add_packed(const UpdateJob& job, const Group& g, int64_t i, int64_t j) {
    const uint32_t* rows = job.packed_rows + i * job.packed_words;
    const uint32_t* row_signs = job.packed_row_signs + i * job.packed_words;
    for (int64_t w = g.word0; w < g.word1; ++w) {
      const U slots(rows[w]), signs(row_signs[w]);
      const uint32_t* words = job.packed_columns + w * job.padded_cols + j;
      const uint32_t* negative = job.packed_column_signs + w * job.padded_cols + j;
#pragma GCC unroll kUnroll
      for (int v = 0; v < kVectors; ++v) {
        const U both = load(words + v * kLanes) & slots;
        all[v] = all[v] + popcount(both);
        up[v] = up[v] + popcount(and_xor(both, load(negative + v * kLanes), signs));
      }
    }
  }
  PL_HD void add_samples(const UpdateJob& job, const Group& g, const Hits& hits, int64_t i,
                         int64_t j) {
    const int64_t groups = job.padded_cols / kGroup;
    for (int64_t q = g.first / 64; q * 64 < g.last; ++q) {
      const uint64_t negative = job.row_negative[i * job.words + q];
      for (uint64_t m = hits.at(q, GROUPS) & window(g, q); m; m &= m - 1) {
        const int bit = __builtin_ctzll(m);
        const int64_t s = q * 64 + bit;
        const U row_word(job.row_words[i * job.count + s]);
        const uint32_t* words = job.column_words + s * job.padded_cols + j;
        const uint32_t* mask = job.column_up[negative >> bit & 1] + s * groups + j / kGroup;
#pragma GCC unroll kUnroll
        for (int v = 0; v < kVectors; ++v) {
          const U n = popcount(load(words + v * kLanes) & row_word);
          all[v] = all[v] + n;
          up[v] = up[v] + select(load_mask(mask, v), n, U(0u));
        }
      }
    }
  }
  // Whether anything fell on group h of the columns.
  PL_HD bool touches(int h) const {
    constexpr int kEach = kGroup / kLanes;
    U merged = all[h * kEach];
    for (int v = 1; v < kEach; ++v) merged = merged | all[h * kEach + v];
    return any(merged);
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
