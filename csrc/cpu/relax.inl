// Updates that forget the order of pulses: counts of a group of samples from their trains
// (grouped), or mean and variance of the counts of a batch from matrix products of line counts
// (moments), then one relaxation step and one gaussian per crosspoint. Included by kernels.inl.

namespace pulseline::cpu {
namespace {

// One gaussian per crosspoint of a block: the vector form of byte_sum_normal.
PL_HD F group_normal(int64_t row, int64_t column, Keys key) {
  const U base = lane_index() * U(kColumnStride) +
                 U(uint32_t(row) * kRowStride + uint32_t(column) * kColumnStride);
  return byte_sum_polynomial(byte_sum(hash(base, key.k0, key.k1)));
}

// Two groups of columns at a time where there are registers for them: a relaxation is one long
// chain of dependent operations.
constexpr int kRelaxed = kLanes == 16 ? 2 : 1;

template <class Device, bool LOW_RANK>
void grouped_rows(const UpdateJob& shared, const Device& model, int64_t row0, int64_t row1) {
  constexpr int kEach = kGroup / kLanes;
  const UpdateJob job = shared;
  const PlacedUpdate a = *job.args;
  const Device device = model;
  const float sigma = device.p.pulsed.dw_min_std * (LOW_RANK ? kRankUnit : 1.0f);
  const bool additive = device.additive_noise(), noisy = sigma != 0.0f;
  for_touched_blocks<kRelaxed>(job, row0, row1, [&](int64_t i, int64_t j, Hits hits) PL_LAMBDA {
    Block<Device, kRelaxed> b;
    b.load_from(job, device, i, j);
#pragma GCC unroll kUnroll
    for (Crosspoint<F>& c : b.c) to_flow<Device>(c);
    for (int64_t g = 0; g < job.group_count; ++g) {
      GroupCounts<kRelaxed> counts;
      if (job.packed)
        counts.add_packed(job, job.groups[g], i, j);
      else
        counts.add_samples(job, job.groups[g], hits, i, j);
#pragma GCC unroll kUnroll
      for (int h = 0; h < kRelaxed; ++h) {
        if (!counts.touches(h)) continue;
#pragma GCC unroll kUnroll
        for (int v = h * kEach; v < (h + 1) * kEach; ++v) {
          const F zero(0.0f);
          F xi = zero;
          if (noisy)
            xi = LOW_RANK ? rank_normal(job, job.group_count, g, i, j + v * kLanes)
                          : group_normal(a.row0 + i, a.col0 + j + v * kLanes, job.groups[g].noise);
          const U up = counts.up[v];
          const Counts<F> n = {to_float(up), to_float(counts.all[v] - up), zero, zero};
          b.w[v] = relax<false>(device, b.c[v], b.w[v], n, sigma, xi, additive);
        }
      }
    }
    b.store_to(a, i * a.cols + j, a.cols - j);
  });
}

// ---- moments ----

// Turns the trains of a group into count and spread of every column and sample.
void column_moments(const UpdateJob& job, int64_t group0, int64_t group1) {
  const int64_t groups = job.padded_cols / kGroup;
  for (int64_t g = group0; g < group1; ++g)
    for (int64_t s = 0, merged = 0; s < job.count; ++merged) {
      const int32_t source = job.train_words[s].source;
      const int64_t first = s;
      int bl = 0;
      for (; s < job.count && job.train_words[s].source == source; ++s)
        bl += job.train_words[s].slots;
      for (int v = 0; v < kGroup / kLanes; ++v) {
        const int64_t j = g * kGroup + v * kLanes;
        U n(0u);
        for (int64_t t = first; t < s; ++t)
          n = n + popcount(load(job.column_words + t * job.padded_cols + j));
        const F count = to_float(n), spread = count * (F(float(bl)) - count);
        // Sign of x: column_up[0] marks the negative ones.
        const M negative = load_mask(job.column_up[0] + first * groups + g, v);
        float* const* out = job.column_factors;
        const int64_t o = merged * job.padded_cols + j;
        store(out[0] + o, select(negative, F(0.0f) - count, count));
        store(out[1] + o, count);
        store(out[2] + o, select(negative, F(0.0f) - spread, spread));
        store(out[3] + o, spread);
      }
    }
}

// The same for rows, normalised; the sign is that of -d, so that products are positive upward.
PL_HD void store_row_factors(const UpdateJob& job, int64_t row, int64_t sample, F count, F bl,
                             M falls, int64_t n) {
  const F zero(0.0f);
  const LineFactors<F> f = row_factors(count, bl);
  const int64_t o = row * job.merged + sample;
  store_partial(job.row_factors[0] + o, select(falls, f.count, zero - f.count), n);
  store_partial(job.row_factors[1] + o, f.count, n);
  store_partial(job.row_factors[2] + o, select(falls, f.spread, zero - f.spread), n);
  store_partial(job.row_factors[3] + o, f.spread, n);
}

// Samples of one word each, kLanes at a time.
PL_HD void short_row_moments(const UpdateJob& job, int64_t i, const float* bl) {
  const uint32_t* negative = reinterpret_cast<const uint32_t*>(job.row_negative + i * job.words);
  for (int64_t s = 0; s < job.count; s += kLanes) {
    const int64_t n = job.count - s;
    const F count = to_float(popcount(load_partial(job.row_words + i * job.count + s, n)));
    store_row_factors(job, i, s, count, load(bl + s), load_mask(negative, int(s / kLanes)), n);
  }
}

// Samples of several words, one at a time.
PL_HD void long_row_moments(const UpdateJob& job, int64_t i) {
  for (int64_t s = 0, merged = 0; s < job.count; ++merged) {
    const int32_t source = job.train_words[s].source;
    const uint32_t negative = uint32_t(job.row_negative[i * job.words + s / 64] >> (s % 64)) & 1u;
    uint32_t n = 0;
    int bl = 0;
    for (; s < job.count && job.train_words[s].source == source; ++s) {
      n += uint32_t(__builtin_popcount(job.row_words[i * job.count + s]));
      bl += job.train_words[s].slots;
    }
    const M falls = nonzero(U(negative));
    store_row_factors(job, i, merged, to_float(U(n)), F(float(bl)), falls, 1);
  }
}

void row_moments(const UpdateJob& job, int64_t group0, int64_t group1) {
  float bl[kGroupSamples + kLanes];
  const bool one_word = job.merged == job.count;
  for (int64_t s = 0; one_word && s < job.count + kLanes; ++s)
    bl[s] = s < job.count ? float(job.train_words[s].slots) : 1.0f;
  for (int64_t i = group0 * kGroup; i < group1 * kGroup; ++i)
    one_word ? short_row_moments(job, i, bl) : long_row_moments(job, i);
}

// sums[f][row][0..panel) for the four factors.
PL_HD void moment_sums(const UpdateJob& job, int rows, int64_t i, int64_t j, float* sums) {
  for (int f = 0; f < 4; ++f)
    register_tile_of<false, true>(rows, job.row_factors[f] + i * job.merged, job.merged,
                                  job.column_factors[f] + j, job.padded_cols, job.merged,
                                  sums + f * kTileRows * kPanel, kPanel);
}

// Relaxation of kColumns columns of one row whose sums lie at `sums`, one factor after the other.
template <class Device, int VECTORS>
PL_HD void relax_row(const UpdateJob& job, const Device& device, int64_t i, int64_t j, Keys key,
                     const float* sums) {
  constexpr int64_t kNext = kTileRows * kPanel;
  const PlacedUpdate& a = *job.args;
  const int64_t offset = i * a.cols + j;
  DrawnWords room;
  const Words words = words_at(job, device, i, j, VECTORS, room);
  const bool additive = device.additive_noise();
#pragma GCC unroll 1
  for (int v = 0; v < VECTORS; ++v) {
    const int64_t n = a.cols - j - v * kLanes, o = offset + v * kLanes;
    if (n <= 0) return;
    const float* s = sums + v * kLanes;
    Crosspoint<F> c = load_crosspoint(words, device, v * kLanes, n);
    to_flow<Device>(c);
    const Counts<F> counts =
        counts_of(load(s + kNext), load(s), load(s + 3 * kNext), load(s + 2 * kNext));
    const F before = n >= kLanes ? load(a.w + o) : load_partial(a.w + o, n);
    F w = relax<true>(device, c, before, counts, device.p.pulsed.dw_min_std,
                      group_normal(a.row0 + i, a.col0 + j + v * kLanes, key), additive);
    w = keep_nan(before, w + F(0.0f));
    n >= kLanes ? store(a.w + o, w) : store_partial(a.w + o, w, n);
  }
}

template <class Device>
void moments_rows(const UpdateJob& shared, const Device& model, int64_t row0, int64_t row1) {
  const UpdateJob job = shared;
  const PlacedUpdate a = *job.args;
  const Device device = model;
  const Keys key = job.groups[0].noise;
  float sums[4 * kTileRows * kPanel];
  for (int64_t j = 0; j < a.cols; j += kPanel)
    for (int64_t i = row0; i < row1;) {
      const int rows = tile_rows(row1 - i);
      moment_sums(job, rows, i, j, sums);
      for (int r = 0; r < rows; ++r)
        relax_row<Device, kTileVectors>(job, device, i + r, j, key, sums + r * kPanel);
      i += rows;
    }
}

template <class Device>
void grouped(const UpdateJob& job, const void* device, int64_t row0, int64_t row1) {
  const Device& d = *static_cast<const Device*>(device);
  if (job.rank_columns) return grouped_rows<Device, true>(job, d, row0, row1);
  grouped_rows<Device, false>(job, d, row0, row1);
}
template <class Device>
void moments(const UpdateJob& job, const void* device, int64_t row0, int64_t row1) {
  moments_rows(job, *static_cast<const Device*>(device), row0, row1);
}

}  // namespace
}  // namespace pulseline::cpu
