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

int64_t above(const float* v, int64_t n, float limit) {
  const F most(limit);
  int64_t count = 0, i = 0;
  for (; i + kLanes <= n; i += kLanes)
    count += __builtin_popcount(to_bits(most < absolute(load(v + i))));
  if (i < n) count += __builtin_popcount(to_bits(most < absolute(load_partial(v + i, n - i))));
  return count;
}

// Words of kLanes lines from `line` on.
PL_HD U line_words(F value, int64_t line, float scale, Keys key, int slots) {
  return line_word(value, (lane_index() + U(uint32_t(line))) * U(kColumnStride), scale, key, slots);
}

// Slots of consecutive train words side by side in one word, signs as words of their own: with
// short trains one word then counts many samples (grouped). Only counts matter there, so the layout
// changes no bit.
struct Packer {
  U slots[kGroup / kLanes], signs[kGroup / kLanes];

  PL_HD Packer() { clear(); }
  PL_HD void clear() {
    for (int v = 0; v < kGroup / kLanes; ++v) slots[v] = signs[v] = U(0u);
  }
  PL_HD void add(int v, U word, M negative, const TrainWord& train, const PackedPlace& at) {
    const uint32_t mask = ((1u << train.slots) - 1u) << at.shift;
    slots[v] = slots[v] | word << at.shift;
    signs[v] = signs[v] | select(negative, U(mask), U(0u));
  }
};
PL_HD bool ends_word(const UpdateJob& job, int64_t s) {
  return s + 1 == job.count || job.places[s + 1].word != job.places[s].word;
}

void column_trains(const UpdateJob& job, int64_t group0, int64_t group1) {
  const PlacedUpdate& a = *job.args;
  const int64_t groups = job.padded_cols / kGroup;
  for (int64_t g = group0; g < group1; ++g) {
    Packer packer;
    for (int64_t q = 0; q < job.words; ++q) {
      uint64_t hits = 0;
      for (int64_t s = q * 64; s < job.count && s < q * 64 + 64; ++s) {
        const TrainWord& train = job.train_words[s];
        uint32_t negative = 0;
        U merged(0u);
        for (int v = 0; v < kGroup / kLanes; ++v) {
          const int64_t j = g * kGroup + v * kLanes;
          const F x = load_partial(a.x + train.source * a.x_stride + j, a.cols - j);
          const U word = line_words(x, a.col0 + j, train.scale_x, train.columns, train.slots);
          store(job.column_words + s * job.padded_cols + j, word);
          merged = merged | word;
          negative |= to_bits(is_negative(x)) << (v * kLanes);
          if (job.places) packer.add(v, word, is_negative(x), train, job.places[s]);
        }
        job.column_up[0][s * groups + g] = negative;
        job.column_up[1][s * groups + g] = ~negative;
        hits |= uint64_t(any(merged)) << (s & 63);
        if (!job.places || !ends_word(job, s)) continue;
        const int64_t o = job.places[s].word * job.padded_cols + g * kGroup;
        for (int v = 0; v < kGroup / kLanes; ++v) {
          store(job.packed_columns + o + v * kLanes, packer.slots[v]);
          store(job.packed_column_signs + o + v * kLanes, packer.signs[v]);
        }
        packer.clear();
      }
      job.column_hits[g * job.words + q] = hits;
    }
  }
}

// One word of kGroup rows, `stride` apart.
PL_HD void scatter(const U* words, uint32_t* out, int64_t stride) {
  uint32_t lanes[kGroup];
  for (int v = 0; v < kGroup / kLanes; ++v) store(lanes + v * kLanes, words[v]);
  for (int r = 0; r < kGroup; ++r) out[r * stride] = lanes[r];
}

// Samples s0 .. s0 + kLanes of kLanes rows from the words of each sample, the sign of d on top.
struct RowTile {
  float words[kLanes][kLanes];  // [sample][row], bits

  PL_HD void write(const UpdateJob& job, int64_t row, int64_t s0, uint64_t* hits,
                   uint64_t* negatives) const {
    const int64_t n = job.count - s0;
    F rows[kLanes];
    load_transposed(words[0], kLanes, rows);
    for (int r = 0; r < kLanes; ++r) {
      const U word = as_bits(rows[r]) & U(0x7fffffffu);
      hits[r] |= uint64_t(to_bits(nonzero(word))) << (s0 & 63);
      negatives[r] |= uint64_t(to_bits(is_negative(rows[r]))) << (s0 & 63);
      float* out = reinterpret_cast<float*>(job.row_words + (row + r) * job.count + s0);
      n >= kLanes ? store(out, as_float(word)) : store_partial(out, as_float(word), n);
    }
  }
};

// Words of kLanes samples and all rows of a group; hits and negatives: one word per row.
PL_HD void row_block(const UpdateJob& job, int64_t row0, int64_t s0, Packer& packer, uint64_t* hits,
                     uint64_t* negatives) {
  const PlacedUpdate& a = *job.args;
  RowTile tiles[kGroup / kLanes];
  for (int l = 0; l < kLanes; ++l) {
    const int64_t s = s0 + l;
    if (s >= job.count) {
      for (int v = 0; v < kGroup / kLanes; ++v) store(tiles[v].words[l], F(0.0f));
      continue;
    }
    const TrainWord& train = job.train_words[s];
    for (int v = 0; v < kGroup / kLanes; ++v) {
      const int64_t i = row0 + v * kLanes;
      const F d = load_partial(a.d + train.source * a.d_stride + i, a.rows - i);
      const U word = line_words(d, a.row0 + i, train.scale_d, train.rows, train.slots);
      store(tiles[v].words[l], as_float(word | (as_bits(d) & U(0x80000000u))));
      if (job.places) packer.add(v, word, is_negative(d), train, job.places[s]);
    }
    if (!job.places || !ends_word(job, s)) continue;
    const int64_t o = row0 * job.packed_words + job.places[s].word;
    scatter(packer.slots, job.packed_rows + o, job.packed_words);
    scatter(packer.signs, job.packed_row_signs + o, job.packed_words);
    packer.clear();
  }
  for (int v = 0; v < kGroup / kLanes; ++v)
    tiles[v].write(job, row0 + v * kLanes, s0, hits + v * kLanes, negatives + v * kLanes);
}

// A group of rows where there is one train word: no tile of samples is worth its while.
PL_HD void single_row_trains(const UpdateJob& job, int64_t row0) {
  const PlacedUpdate& a = *job.args;
  const TrainWord& train = job.train_words[0];
  const float* d = a.d + train.source * a.d_stride;
  for (int v = 0; v < kGroup / kLanes; ++v) {
    const int64_t i = row0 + v * kLanes;
    const F value = load_partial(d + i, a.rows - i);
    const U word = line_words(value, a.row0 + i, train.scale_d, train.rows, train.slots);
    store(job.row_words + i, word);
    const uint32_t hits = to_bits(nonzero(word)), negatives = to_bits(is_negative(value));
    for (int r = 0; r < kLanes; ++r) {
      job.row_hits[i + r] = hits >> r & 1u;
      job.row_negative[i + r] = negatives >> r & 1u;
    }
  }
}

void row_trains(const UpdateJob& job, int64_t group0, int64_t group1) {
  if (job.count == 1 && !job.places) {
    for (int64_t g = group0; g < group1; ++g) single_row_trains(job, g * kGroup);
    return;
  }
  for (int64_t row0 = group0 * kGroup; row0 < group1 * kGroup; row0 += kGroup) {
    Packer packer;
    for (int64_t q = 0; q < job.words; ++q) {
      uint64_t hits[kGroup] = {}, negatives[kGroup] = {};
      for (int64_t s0 = q * 64; s0 < job.count && s0 < q * 64 + 64; s0 += kLanes)
        row_block(job, row0, s0, packer, hits, negatives);
      for (int r = 0; r < kGroup; ++r) {
        job.row_hits[(row0 + r) * job.words + q] = hits[r];
        job.row_negative[(row0 + r) * job.words + q] = negatives[r];
      }
    }
  }
}

}  // namespace
}  // namespace pulseline::cpu
