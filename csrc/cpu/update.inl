// The pulsed update: a block of one row and 32 columns stays in registers for all samples of a
// slice; samples without a coincidence in sight are skipped before anything is loaded. Included by
// kernels.inl.

namespace pulseline::cpu {
namespace {

constexpr int kHashes = kGroup / kLanes / 2;  // one hash serves columns c and c + 16 of a group

PL_HD M is_nan(F x) { return is_negative(as_float(U(kInfinity) - as_bits(absolute(x)))); }
// A weight that was NaN stays so: `clip` does not know it.
PL_HD F keep_nan(F before, F after) { return select(is_nan(before), before, after); }

// One row and GROUPS groups of columns: weights and device parameters.
template <class Device, int GROUPS>
struct Block {
  static constexpr int kVectors = GROUPS * kGroup / kLanes;
  static constexpr int kColumns = GROUPS * kGroup;
  F w[kVectors];
  Crosspoint<F> c[kVectors];
  bool nan;  // whether a weight may be one: whether their sum is

  PL_HD void load_from(const UpdateJob& job, const Device& device, int64_t i, int64_t j) {
    DrawnWords room;
    const Words words = words_at(job, device, i, j, kVectors, room);
    const int64_t columns = job.args->cols - j;
    const float* from = job.args->w + i * job.args->cols + j;
    if (columns >= kColumns) {
#pragma GCC unroll kUnroll
      for (int v = 0; v < kVectors; ++v) {
        w[v] = load(from + v * kLanes);
        c[v] = load_crosspoint(words, device, v * kLanes, kLanes);
      }
    } else {
#pragma GCC unroll kUnroll
      for (int v = 0; v < kVectors; ++v) {
        const int64_t n = columns - v * kLanes;
        w[v] = load_partial(from + v * kLanes, n);
        c[v] = load_crosspoint(words, device, v * kLanes, n < kLanes ? n : kLanes);
      }
    }
    F sum = w[0];
    for (int v = 1; v < kVectors; ++v) sum = sum + w[v];
    nan = any(is_nan(sum));
  }
  // Adding +0 turns -0 into +0: a stored weight is never -0, whatever was skipped.
  PL_HD void store_to(const PlacedUpdate& a, int64_t offset, int64_t columns) const {
#pragma GCC unroll kUnroll
    for (int v = 0; v < kVectors; ++v) {
      const int64_t o = offset + v * kLanes;
      const int64_t n = columns - v * kLanes;
      F x = w[v] + F(0.0f);
      if (nan) x = keep_nan(columns >= kColumns ? load(a.w + o) : load_partial(a.w + o, n), x);
      columns >= kColumns ? store(a.w + o, x) : store_partial(a.w + o, x, n);
    }
  }
};

// Cycle noise of a block: the vector form of cycle_normal.
template <int GROUPS>
struct BlockNoise {
  static constexpr float kUnit = 1.0f;
  U base[GROUPS * kHashes];

  PL_HD BlockNoise(const PlacedUpdate& a, int64_t i, int64_t j) {
    const int64_t row = a.row0 + i, column = a.col0 + j;
#pragma GCC unroll kUnroll
    for (int h = 0; h < GROUPS * kHashes; ++h) {
      const int64_t first = column + h / kHashes * kGroup + h % kHashes * kLanes;
      base[h] = lane_index() * U(kColumnStride) +
                U(uint32_t(row) * kRowStride + uint32_t(first) * kColumnStride);
    }
  }
  PL_HD void draw_sample(const UpdateJob& job, const NoiseTables& tables, int64_t s, F* xi) const {
    draw(tables, job.train_words[s].cycle, xi);
  }
  PL_HD void draw(const NoiseTables& tables, Keys key, F* xi) const {
    const U mantissa(0x7fffffu), half(0x3f000000u);
#pragma GCC unroll kUnroll
    for (int h = 0; h < GROUPS * kHashes; ++h) {
      const int low = h / kHashes * 2 * kHashes + h % kHashes;
      const U inner = hash_inner(base[h], key.k0, key.k1), counts = popcount16(hash_outer(inner));
      xi[low] = tables.cubic_low(counts) + as_float((inner & mantissa) | half);
      xi[low + kHashes] = tables.cubic_high(counts) + as_float(shift_in<9>(inner, 0x7eu));
    }
  }
};

// The same of kLanes columns by a hash each. upper: columns that take the high half; K: the key of
// all lanes, or of each its own.
template <class K>
PL_HD F column_normal(const NoiseTables& tables, U base, M upper, K k0, K k1) {
  const U inner = hash_inner(base, k0, k1), counts = popcount16(hash_outer(inner));
  const F low = tables.cubic_low(counts) + as_float((inner & U(0x7fffffu)) | U(0x3f000000u));
  const F high = tables.cubic_high(counts) + as_float(shift_in<9>(inner, 0x7eu));
  return select(upper, high, low);
}

// The same where a block begins within a group of 32 columns of its array: one hash per column.
struct SplitNoise {
  static constexpr float kUnit = 1.0f;
  U base[kGroup / kLanes];
  M upper[kGroup / kLanes];

  PL_HD SplitNoise(const PlacedUpdate& a, int64_t i, int64_t j) {
    const int64_t row = a.row0 + i, column = a.col0 + j;
#pragma GCC unroll kUnroll
    for (int v = 0; v < kGroup / kLanes; ++v) {
      const U c = lane_index() + U(uint32_t(column) + uint32_t(v * kLanes));
      base[v] = (c & U(~16u)) * U(kColumnStride) + U(uint32_t(row) * kRowStride);
      upper[v] = nonzero(c & U(16u));
    }
  }
  PL_HD void draw_sample(const UpdateJob& job, const NoiseTables& tables, int64_t s, F* xi) const {
    draw(tables, job.train_words[s].cycle, xi);
  }
  PL_HD void draw(const NoiseTables& tables, Keys key, F* xi) const {
#pragma GCC unroll kUnroll
    for (int v = 0; v < kGroup / kLanes; ++v)
      xi[v] = column_normal(tables, base[v], upper[v], key.k0, key.k1);
  }
};
PL_HD bool splits(const PlacedUpdate& a) { return a.col0 % kGroup != 0; }

// Columns whose trains fit the second-level cache together.
PL_HD int64_t strip_columns(const UpdateJob& job) {
  const int64_t words = (job.count > 0 ? job.count : 1) * (job.rank_columns ? 1 + kRankWords : 1);
  const int64_t fit = (256 * 1024) / (4 * words) & ~int64_t(63);
  return fit < 64 ? 64 : fit < job.padded_cols ? fit : job.padded_cols;
}

// Samples that touch a row and `groups` groups of columns.
struct Hits {
  const uint64_t *row, *column;
  int64_t words;
  PL_HD uint64_t at(int64_t q, int groups) const {
    return row[q] & (groups == 2 ? column[q] | column[words + q] : column[q]);
  }
};

// Whether pulses of any sample meet there: what nothing meets is not drawn.
template <int GROUPS>
PL_HD bool meets(const UpdateJob& job, int64_t i, int64_t j, const Hits& hits) {
  for (int64_t q = 0; q < job.words; ++q)
    for (uint64_t m = hits.at(q, GROUPS); m; m &= m - 1) {
      const int64_t s = q * 64 + __builtin_ctzll(m);
      const uint32_t* words = job.column_words + s * job.padded_cols + j;
      U met(0u);
#pragma GCC unroll kUnroll
      for (int v = 0; v < GROUPS * kGroup / kLanes; ++v) met = met | load(words + v * kLanes);
      if (any(met & U(job.row_words[i * job.count + s]))) return true;
    }
  return false;
}

// What an update records of a block on its way (GROUPS 1): nothing, or its taps. Those of what no
// sample touches are `skip`ped: they hold what is stored.
struct Untapped {
  PL_HD static void skip(const UpdateJob&, int64_t, int64_t, int64_t) {}
  template <class B>
  PL_HD void before(const B&, int64_t) {}
  template <class B>
  PL_HD void after(const B&, int64_t) {}
  template <class B>
  PL_HD void end(const B&) {}
};
struct Tapped {
  static constexpr int64_t kNever = int64_t(1) << 40;
  const SliceTap *at, *last;
  const float* stored;  // of the row and from the column on
  float* values;        // of the row
  int64_t column, next;

  PL_HD Tapped(const UpdateJob& job, const PlacedUpdate& a, int64_t i, int64_t j)
      : at(job.taps + job.tap_first[j / kGroup]),
        last(job.taps + job.tap_first[j / kGroup + 1]),
        stored(a.w + i * a.cols + j),
        values(a.taps.values + i * a.taps.count),
        column(j) {
    look();
  }
  PL_HD bool none() const { return at == last; }
  PL_HD void look() { next = at < last ? at->before : kNever; }
  // Columns j0 up to j1 of row i.
  PL_HD static void skip(const UpdateJob& job, int64_t i, int64_t j0, int64_t j1) {
    const PlacedUpdate& a = *job.args;
    const SliceTap* const end = job.taps + job.tap_first[(j1 + kGroup - 1) / kGroup];
    for (const SliceTap* t = job.taps + job.tap_first[j0 / kGroup]; t < end; ++t)
      a.taps.values[i * a.taps.count + t->number] = a.w[i * a.cols + t->column];
  }
  // Train word s is next.
  template <class B>
  PL_HD void before(const B& b, int64_t s) {
    if (s >= next) record(b, s);
  }
  template <class B>
  PL_HD void after(const B&, int64_t) {}
  template <class B>
  PL_HD void end(const B& b) {
    if (at < last) record(b, kNever - 1);
  }
  // As `store_to` would store them.
  template <class B>
  PL_HD void record(const B& b, int64_t s) {
    alignas(64) float lanes[B::kColumns];
#pragma GCC unroll kUnroll
    for (int v = 0; v < B::kVectors; ++v) store(lanes + v * kLanes, b.w[v] + F(0.0f));
    for (; at < last && at->before <= s; ++at) {
      const int64_t lane = at->column - column;
      const bool keeps = b.nan && stored[lane] != stored[lane];
      values[at->number] = keeps ? stored[lane] : lanes[lane];
    }
    look();
  }
};

// The same where no column is tapped twice: a copy of the weights follows them, each up to its tap,
// so that there is no branch in the loop.
struct Followed {
  static constexpr int kVectors = kGroup / kLanes;
  const Tapped taps;
  int64_t columns;  // of the row from the first one on
  U words[kVectors];
  F w[kVectors];

  template <class B>
  PL_HD Followed(const UpdateJob& job, const Tapped& of, int64_t j, const B& b)
      : taps(of), columns(job.args->cols - j) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < kVectors; ++v) {
      words[v] = load(reinterpret_cast<const uint32_t*>(job.tap_words) + j + v * kLanes);
      w[v] = b.w[v];
    }
  }
  template <class B>
  PL_HD void before(const B&, int64_t) {}
  // Train word s is done.
  template <class B>
  PL_HD void after(const B& b, int64_t s) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < kVectors; ++v)
      w[v] = select(is_negative(as_float(U(uint32_t(s)) - words[v])), b.w[v], w[v]);
  }
  // As `store_to` would store them.
  template <class B>
  PL_HD void end(const B& b) {
    alignas(64) float lanes[kGroup];
#pragma GCC unroll kUnroll
    for (int v = 0; v < kVectors; ++v) {
      F x = w[v] + F(0.0f);
      if (b.nan) x = keep_nan(load_partial(taps.stored + v * kLanes, columns - v * kLanes), x);
      store(lanes + v * kLanes, x);
    }
    for (const SliceTap* t = taps.at; t < taps.last; ++t)
      taps.values[t->number] = lanes[t->column - taps.column];
  }
};

// Calls body(tap) for a block of a row: most of one that records have no taps.
template <class Tap, class B, class Body>
PL_HD void with_taps(const UpdateJob& job, int64_t i, int64_t j, const B& b, Body body) {
  if constexpr (std::is_same_v<Tap, Tapped>) {
    const Tapped tap(job, *job.args, i, j);
    if (!tap.none() && job.tap_once[j / kGroup]) return body(Followed(job, tap, j, b));
    if (!tap.none()) return body(tap);
  }
  body(Untapped());
}

// Calls body(row, column, hits) for every row and `groups` groups of columns that any sample
// touches.
template <int GROUPS, class Tap = Untapped, class Body>
PL_HD void for_touched_blocks(const UpdateJob& job, int64_t row0, int64_t row1, Body body) {
  const int64_t cols = job.args->cols, strip = strip_columns(job);
  for (int64_t j0 = 0; j0 < cols; j0 += strip) {
    const int64_t j1 = j0 + strip < cols ? j0 + strip : cols;
    for (int64_t i = row0; i < row1; ++i) {
      const uint64_t* row = job.row_hits + i * job.words;
      uint64_t row_any = 0;
      for (int64_t q = 0; q < job.words; ++q) row_any |= row[q];
      if (!row_any) {
        Tap::skip(job, i, j0, j1);
        continue;
      }
      for (int64_t j = j0; j < j1; j += GROUPS * kGroup) {
        const Hits hits = {row, job.column_hits + j / kGroup * job.words, job.words};
        uint64_t any = 0;
        for (int64_t q = 0; q < job.words; ++q) any |= hits.at(q, GROUPS);
        if (any && (!job.drawn || meets<GROUPS>(job, i, j, hits)))
          body(i, j, hits);
        else
          Tap::skip(job, i, j, j + GROUPS * kGroup < j1 ? j + GROUPS * kGroup : j1);
      }
    }
  }
}

template <class Device, bool ADDITIVE, int GROUPS, class Noise = BlockNoise<GROUPS>,
          class Tap = Untapped>
void exact_rows(const UpdateJob& shared, const Device& model, int64_t row0, int64_t row1) {
  // Copies: vector stores may alias anything, so fields behind a reference are read again each
  // time.
  const UpdateJob job = shared;
  const PlacedUpdate a = *job.args;
  const Device device = model;
  const NoiseTables tables(device.p.pulsed.dw_min_std * Noise::kUnit);
  const int64_t groups = job.padded_cols / kGroup;
  for_touched_blocks<GROUPS, Tap>(job, row0, row1, [&](int64_t i, int64_t j, Hits hits) PL_LAMBDA {
    Block<Device, GROUPS> b;
    b.load_from(job, device, i, j);
    const Noise noise(a, i, j);
    with_taps<Tap>(job, i, j, b, [&](auto tap) PL_LAMBDA {
      for (int64_t q = 0; q < job.words; ++q) {
        const uint64_t negative = job.row_negative[i * job.words + q];
        for (uint64_t m = hits.at(q, GROUPS); m; m &= m - 1) {
          const int bit = __builtin_ctzll(m);
          const int64_t s = q * 64 + bit;
          tap.before(b, s);
          const U row_word(job.row_words[i * job.count + s]);
          const uint32_t* words = job.column_words + s * job.padded_cols + j;
          const uint32_t* up = job.column_up[negative >> bit & 1] + s * groups + j / kGroup;
          F xi[Block<Device, GROUPS>::kVectors];
          noise.draw_sample(job, tables, s, xi);
#pragma GCC unroll kUnroll
          for (int v = 0; v < Block<Device, GROUPS>::kVectors; ++v) {
            const U n = popcount(load(words + v * kLanes) & row_word);
            b.w[v] = pulse(device, b.c[v], b.w[v], load_mask(up, v), to_float(n), tables.root(n),
                           xi[v], ADDITIVE);
          }
          tap.after(b, s);
        }
      }
      tap.end(b);
    });
    b.store_to(a, i * a.cols + j, a.cols - j);
  });
}

// Every pulse on its own, in slot order.
template <class Device, int GROUPS = 1, class Noise = BlockNoise<GROUPS>, class Tap = Untapped>
void strict_rows(const UpdateJob& shared, const Device& model, int64_t row0, int64_t row1) {
  // Copies: vector stores may alias anything, so fields behind a reference are read again each
  // time.
  const UpdateJob job = shared;
  const PlacedUpdate a = *job.args;
  const Device device = model;
  const NoiseTables tables(device.p.pulsed.dw_min_std);
  const F sigma(device.p.pulsed.dw_min_std);
  const bool additive = device.additive_noise();
  const int64_t groups = job.padded_cols / kGroup;
  for_touched_blocks<GROUPS, Tap>(job, row0, row1, [&](int64_t i, int64_t j, Hits hits) PL_LAMBDA {
    Block<Device, GROUPS> b;
    b.load_from(job, device, i, j);
    const Noise noise(a, i, j);
    with_taps<Tap>(job, i, j, b, [&](auto tap) PL_LAMBDA {
      for (int64_t q = 0; q < job.words; ++q) {
        const uint64_t negative = job.row_negative[i * job.words + q];
        for (uint64_t m = hits.at(q, GROUPS); m; m &= m - 1) {
          const int bit = __builtin_ctzll(m);
          const int64_t s = q * 64 + bit;
          tap.before(b, s);
          const uint32_t* words = job.column_words + s * job.padded_cols + j;
          const uint32_t* up = job.column_up[negative >> bit & 1] + s * groups + j / kGroup;
          for (uint32_t slots = job.row_words[i * job.count + s]; slots; slots &= slots - 1) {
            const int slot = __builtin_ctz(slots);
            F xi[Block<Device, GROUPS>::kVectors];
            noise.draw(tables, job.slot_keys[s * kSlotsPerWord + slot], xi);
            for (int v = 0; v < Block<Device, GROUPS>::kVectors; ++v) {
              const M fires = nonzero(load(words + v * kLanes) & U(1u << slot));
              const F moved =
                  pulse(device, b.c[v], b.w[v], load_mask(up, v), F(1.0f), sigma, xi[v], additive);
              b.w[v] = select(fires, moved, b.w[v]);
            }
          }
          tap.after(b, s);
        }
      }
      tap.end(b);
    });
    b.store_to(a, i * a.cols + j, a.cols - j);
  });
}

// No trains: the expected update of the response functions, sample by sample.
template <class Device, class Tap = Untapped, int GROUPS = 1>
void expected_rows(const UpdateJob& job, const Device& device, int64_t row0, int64_t row1) {
  const PlacedUpdate& a = *job.args;
  for (int64_t i = row0; i < row1; ++i) {
    for (int64_t j = 0; j < a.cols; j += Block<Device, GROUPS>::kColumns) {
      Block<Device, GROUPS> b;
      b.load_from(job, device, i, j);
      with_taps<Tap>(job, i, j, b, [&](auto tap) PL_LAMBDA {
        for (int64_t s = 0; s < a.batch; ++s) {
          tap.before(b, s);
          const float d = a.d[s * a.d_stride + i];
          if (d == 0.0f) continue;
          const MeanPulses mean = mean_pulses(a.train, job.trains[s]);
          const F rate(finite(mean.rate * pulseline::min(pulseline::absolute(d), mean.most_d)));
          const F most_x(mean.most_x);
          for (int v = 0; v < Block<Device, GROUPS>::kVectors; ++v) {
            const int64_t o = j + v * kLanes;
            const F x = load_partial(a.x + s * a.x_stride + o, a.cols - o);
            const M up = d > 0.0f ? is_negative(x) : is_negative(F(0.0f) - x);
            const F pulses = rate * min(absolute(x), most_x);
            const F moved = fma(pulses, device.step(b.c[v], b.w[v], up), b.w[v]);
            b.w[v] = clip(moved, b.c[v].hi, b.c[v].lo);
          }
          tap.after(b, s);
        }
        tap.end(b);
      });
      b.store_to(a, i * a.cols + j, a.cols - j);
    }
  }
}

}  // namespace
}  // namespace pulseline::cpu
