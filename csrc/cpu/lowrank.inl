// Low-rank noise (core/rng.h): factors of all lines of a slice, then eight multiply-adds per
// crosspoint. Included by kernels.inl.

namespace pulseline::cpu {
namespace {

// Draw n of a slice: train word n (exact) or group n (grouped).
PL_HD void rank_draw(const UpdateJob& job, int64_t n, uint64_t& k, uint32_t& draw) {
  k = job.groups ? job.groups[n].k : job.args->k + uint64_t(job.train_words[n].source);
  draw = job.groups ? 0u : job.train_words[n].word;
}

// Whether any train word of draw n is set in the hit bits of a line or of a group of lines.
PL_HD bool rank_touched(const UpdateJob& job, int64_t n, const uint64_t* hits) {
  const int64_t first = job.groups ? job.groups[n].first : n;
  const int64_t last = job.groups ? job.groups[n].last : n + 1;
  for (int64_t s = first; s < last; ++s)
    if (hits[s / 64] >> (s % 64) & 1u) return true;
  return false;
}

PL_HD int64_t rank_draws(const UpdateJob& job) { return job.groups ? job.group_count : job.count; }

void column_ranks(const UpdateJob& job, int64_t group0, int64_t group1) {
  const Stream stream = job.args->stream;
  const int64_t col0 = job.args->col0;
  for (int64_t g = group0; g < group1; ++g)
    for (int64_t n = 0; n < rank_draws(job); ++n) {
      if (!rank_touched(job, n, job.column_hits + g * job.words)) continue;
      uint64_t k;
      uint32_t draw;
      rank_draw(job, n, k, draw);
      uint32_t* out = job.rank_columns + n * kRankWords * job.padded_cols + g * kGroup;
      uint32_t bits[kRankWords][kGroup];
      for (int c = 0; c < kGroup; ++c) {  // the compiler makes vectors of it
        const Philox4 r = draw4(stream, kColumnRank, k, uint32_t(col0 + g * kGroup + c), draw);
        for (int q = 0; q < kRankWords; ++q) bits[q][c] = r.v[q];
      }
      for (int q = 0; q < kRankWords; ++q)
        for (int c = 0; c < kGroup; c += kLanes)
          store(out + q * job.padded_cols + c, rank_column(load(bits[q] + c)));
    }
}

void row_ranks(const UpdateJob& job, int64_t group0, int64_t group1) {
  const Stream stream = job.args->stream;
  const int64_t draws = rank_draws(job);
  for (int64_t i = group0 * kGroup; i < group1 * kGroup; ++i)
    for (int64_t n = 0; n < draws; ++n) {
      if (!rank_touched(job, n, job.row_hits + i * job.words)) continue;
      uint64_t k;
      uint32_t draw;
      rank_draw(job, n, k, draw);
      const Philox4 r = draw4(stream, kRowRank, k, uint32_t(job.args->row0 + i), draw);
      uint32_t* out = job.rank_rows + (i * draws + n) * kRankWords;
      for (int q = 0; q < kRankWords; ++q) out[q] = rank_row(r.v[q]);
    }
}

// The sum of kLanes crosspoints from `column` on; `draws` is rank_draws. Exact, so that the order
// of terms, and whether a product is rounded on its own, do not show.
PL_HD F rank_normal(const UpdateJob& job, int64_t draws, int64_t n, int64_t row, int64_t column) {
  const uint32_t* rows = job.rank_rows + (row * draws + n) * kRankWords;
  const uint32_t* columns = job.rank_columns + n * kRankWords * job.padded_cols + column;
  const U high(0xffff0000u);
  F sum[2] = {F(0.0f), F(0.0f)};
#pragma GCC unroll kUnroll
  for (int q = 0; q < kRankWords; ++q) {
    const U u(rows[q]), v = load(columns + q * job.padded_cols);
    sum[0] = mac(as_float(u << 16), as_float(v << 16), sum[0]);
    sum[1] = mac(as_float(u & high), as_float(v & high), sum[1]);
  }
  return sum[0] + sum[1];
}

struct RankNoise {  // of one row and a group of columns
  static constexpr float kUnit = kRankUnit;
  int64_t row, column;

  PL_HD RankNoise(const PlacedUpdate&, int64_t i, int64_t j) : row(i), column(j) {}
  PL_HD void draw_sample(const UpdateJob& job, const NoiseTables&, int64_t s, F* xi) const {
#pragma GCC unroll kUnroll
    for (int v = 0; v < kGroup / kLanes; ++v)
      xi[v] = rank_normal(job, job.count, s, row, column + v * kLanes);
  }
};

}  // namespace
}  // namespace pulseline::cpu
