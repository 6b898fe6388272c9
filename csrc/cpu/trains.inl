// Pulse words of a slice of samples, and the hit bits that let the update skip. Included by
// kernels.inl.

namespace pulseline::cpu {
namespace {

uint32_t absmax(const float* v, int64_t n) {
  U most(0u);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) most = max_signed(most, as_bits(absolute(load(v + i))));
  if (i < n) most = max_signed(most, as_bits(absolute(load_partial(v + i, n - i))));
  return max_lane(most);
}

// Words of kLanes lines from `line` on; all lanes zero is common and cheap.
PL_HD U line_words(F value, int64_t line, float scale, Keys key, int slots) {
  const U base = (lane_index() + U(uint32_t(line))) * U(kColumnStride);
  const F u = uniform24(hash(base + U(kRoundingDraw * kRowStride), key.k0, key.k1));
  const U p16 = probability16(F(scale), value, u);
  return any(p16) ? train_word(p16, base, key, slots) : U(0u);
}

void column_trains(const UpdateJob& job, int64_t group0, int64_t group1) {
  const UpdateArgs& a = *job.args;
  const int64_t groups = job.padded_cols / kGroup;
  for (int64_t g = group0; g < group1; ++g) {
    for (int64_t q = 0; q < job.words; ++q) {
      uint64_t hits = 0;
      for (int64_t s = q * 64; s < job.count && s < q * 64 + 64; ++s) {
        const Sample& sample = job.samples[s];
        uint32_t negative = 0;
        U merged(0u);
        for (int v = 0; v < kGroup / kLanes; ++v) {
          const int64_t j = g * kGroup + v * kLanes;
          const F x = load_partial(a.x + sample.source * a.cols + j, a.cols - j);
          const U word = line_words(x, j, sample.scale_x, sample.columns, sample.slots);
          store(job.column_words + s * job.padded_cols + j, word);
          merged = merged | word;
          negative |= to_bits(is_negative(x)) << (v * kLanes);
        }
        job.column_up[0][s * groups + g] = negative;
        job.column_up[1][s * groups + g] = ~negative;
        hits |= uint64_t(any(merged)) << (s & 63);
      }
      job.column_hits[g * job.words + q] = hits;
    }
  }
}

void row_trains(const UpdateJob& job, int64_t group0, int64_t group1) {
  const UpdateArgs& a = *job.args;
  for (int64_t g = group0; g < group1; ++g) {
    for (int64_t q = 0; q < job.words; ++q) {
      uint64_t hits[kGroup] = {}, negatives[kGroup] = {};
      for (int64_t s = q * 64; s < job.count && s < q * 64 + 64; ++s) {
        const Sample& sample = job.samples[s];
        uint32_t words[kGroup], negative = 0;
        for (int v = 0; v < kGroup / kLanes; ++v) {
          const int64_t i = g * kGroup + v * kLanes;
          const F d = load_partial(a.d + sample.source * a.rows + i, a.rows - i);
          store(words + v * kLanes, line_words(d, i, sample.scale_d, sample.rows, sample.slots));
          negative |= to_bits(is_negative(d)) << (v * kLanes);
        }
        for (int r = 0; r < kGroup; ++r) {
          job.row_words[(g * kGroup + r) * job.count + s] = words[r];
          hits[r] |= uint64_t(words[r] != 0) << (s & 63);
          negatives[r] |= uint64_t(negative >> r & 1u) << (s & 63);
        }
      }
      for (int r = 0; r < kGroup; ++r) {
        job.row_hits[(g * kGroup + r) * job.words + q] = hits[r];
        job.row_negative[(g * kGroup + r) * job.words + q] = negatives[r];
      }
    }
  }
}

}  // namespace
}  // namespace pulseline::cpu
