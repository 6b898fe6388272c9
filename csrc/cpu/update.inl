// The pulsed update: a block of one row and 32 columns stays in registers for all samples of a
// slice; samples without a coincidence in sight are skipped before anything is loaded. Included by
// kernels.inl.

namespace pulseline::cpu {
namespace {

constexpr int kBlock = kGroup / kLanes;   // vectors of a block
constexpr int kHashes = kBlock / 2;       // one hash serves columns c and c + 16

// One row and 32 columns of weights and device parameters.
template <class Device>
struct Block {
  F w[kBlock];
  Crosspoint<F> c[kBlock];

  PL_HD void load_from(const UpdateArgs& a, const Device& device, int64_t offset, int64_t columns) {
#pragma GCC unroll 8
    for (int v = 0; v < kBlock; ++v) {
      const int64_t o = offset + v * kLanes, n = columns - v * kLanes;
      w[v] = columns >= kGroup ? load(a.w + o) : load_partial(a.w + o, n);
      const U step = fetch(a.step + o, columns, n), bound = fetch(a.bound + o, columns, n);
      c[v].up = first(step);
      c[v].down = second(step);
      c[v].hi = first(bound);
      c[v].lo = second(bound);
      if (Device::kSlopes) {
        const U slope = fetch(a.slope + o, columns, n);
        c[v].slope_up = first(slope);
        c[v].slope_down = second(slope);
      }
      device.prepare(c[v]);
    }
  }
  // Adding +0 turns -0 into +0: a stored weight is never -0, whatever was skipped.
  PL_HD void store_to(const UpdateArgs& a, int64_t offset, int64_t columns) const {
#pragma GCC unroll 8
    for (int v = 0; v < kBlock; ++v) {
      const int64_t o = offset + v * kLanes;
      const F x = w[v] + F(0.0f);
      columns >= kGroup ? store(a.w + o, x) : store_partial(a.w + o, x, columns - v * kLanes);
    }
  }
  static PL_HD U fetch(const uint32_t* p, int64_t columns, int64_t n) {
    return columns >= kGroup ? load(p) : load_partial(p, n);
  }
  static PL_HD F first(U pair) { return as_float(pair & U(0xffff0000u)); }
  static PL_HD F second(U pair) { return as_float(pair << 16); }
};

// Cycle noise of a block: the vector form of cycle_normal.
struct BlockNoise {
  U base[kHashes];

  PL_HD BlockNoise(int64_t row, int64_t column) {
#pragma GCC unroll 8
    for (int h = 0; h < kHashes; ++h)
      base[h] = U(uint32_t(row) * kRowStride) +
                (lane_index() + U(uint32_t(column + h * kLanes))) * U(kColumnStride);
  }
  PL_HD void draw(const NoiseTables& tables, Keys key, F* xi) const {
    const U mantissa(0x7fffffu), half(0x3f000000u);
#pragma GCC unroll 8
    for (int h = 0; h < kHashes; ++h) {
      const U inner = hash_inner(base[h], key.k0, key.k1), counts = popcount16(hash_outer(inner));
      xi[h] = tables.cubic_low(counts) + as_float((inner & mantissa) | half);
      xi[h + kHashes] = tables.cubic_high(counts) + as_float((inner >> 9) | half);
    }
  }
};

// Columns whose trains fit the second-level cache together.
PL_HD int64_t strip_columns(const UpdateJob& job) {
  const int64_t fit = (256 * 1024) / (4 * (job.count > 0 ? job.count : 1)) & ~int64_t(63);
  return fit < 64 ? 64 : fit < job.padded_cols ? fit : job.padded_cols;
}

// Calls body(block, samples' hit words ...) for every (row, 32 columns) that any sample touches.
template <class Body>
PL_HD void for_touched_blocks(const UpdateJob& job, int64_t row0, int64_t row1, Body body) {
  const int64_t cols = job.args->cols, strip = strip_columns(job);
  for (int64_t j0 = 0; j0 < cols; j0 += strip) {
    const int64_t j1 = j0 + strip < cols ? j0 + strip : cols;
    for (int64_t i = row0; i < row1; ++i) {
      const uint64_t* row = job.row_hits + i * job.words;
      uint64_t row_any = 0;
      for (int64_t q = 0; q < job.words; ++q) row_any |= row[q];
      if (!row_any) continue;
      for (int64_t j = j0; j < j1; j += kGroup) {
        const uint64_t* column = job.column_hits + j / kGroup * job.words;
        uint64_t both = 0;
        for (int64_t q = 0; q < job.words; ++q) both |= row[q] & column[q];
        if (both) body(i, j, row, column);
      }
    }
  }
}

// NOISE: 0 none, 1 proportional to the step, 2 additive.
template <class Device, int NOISE>
void exact_rows(const UpdateJob& job, const Device& device, int64_t row0, int64_t row1) {
  const UpdateArgs& a = *job.args;
  const NoiseTables tables(device.p.pulsed.dw_min_std);
  const int64_t groups = job.padded_cols / kGroup;
  for_touched_blocks(job, row0, row1, [&](int64_t i, int64_t j, const uint64_t* row,
                                          const uint64_t* column) PL_LAMBDA {
    Block<Device> b;
    b.load_from(a, device, i * a.cols + j, a.cols - j);
    const BlockNoise noise(i, j);
    for (int64_t q = 0; q < job.words; ++q) {
      const uint64_t negative = job.row_negative[i * job.words + q];
      for (uint64_t m = row[q] & column[q]; m; m &= m - 1) {
        const int bit = __builtin_ctzll(m);
        const int64_t s = q * 64 + bit;
        const U row_word(job.row_words[i * job.count + s]);
        const uint32_t* words = job.column_words + s * job.padded_cols + j;
        const uint32_t* up = job.column_up[negative >> bit & 1] + s * groups + j / kGroup;
        F xi[kBlock];
        if (NOISE) noise.draw(tables, job.samples[s].cycle, xi);
#pragma GCC unroll 8
        for (int v = 0; v < kBlock; ++v) {
          const U n = popcount(load(words + v * kLanes) & row_word);
          const F root = NOISE ? tables.root(n) : F(0.0f);
          b.w[v] = NOISE ? pulse(device, b.c[v], b.w[v], load_mask(up, v), to_float(n), root, xi[v],
                                 NOISE == 2)
                         : clip(fma(to_float(n), device.step(b.c[v], b.w[v], load_mask(up, v)),
                                    b.w[v]),
                                b.c[v].hi, b.c[v].lo);
        }
      }
    }
    b.store_to(a, i * a.cols + j, a.cols - j);
  });
}

// Every pulse on its own, in slot order.
template <class Device>
void strict_rows(const UpdateJob& job, const Device& device, int64_t row0, int64_t row1) {
  const UpdateArgs& a = *job.args;
  const NoiseTables tables(device.p.pulsed.dw_min_std);
  const F sigma(device.p.pulsed.dw_min_std);
  const bool additive = device.additive_noise();
  const int64_t groups = job.padded_cols / kGroup;
  for_touched_blocks(job, row0, row1, [&](int64_t i, int64_t j, const uint64_t* row,
                                          const uint64_t* column) PL_LAMBDA {
    Block<Device> b;
    b.load_from(a, device, i * a.cols + j, a.cols - j);
    const BlockNoise noise(i, j);
    for (int64_t q = 0; q < job.words; ++q) {
      const uint64_t negative = job.row_negative[i * job.words + q];
      for (uint64_t m = row[q] & column[q]; m; m &= m - 1) {
        const int bit = __builtin_ctzll(m);
        const int64_t s = q * 64 + bit;
        const uint32_t* words = job.column_words + s * job.padded_cols + j;
        const uint32_t* up = job.column_up[negative >> bit & 1] + s * groups + j / kGroup;
        for (uint32_t slots = job.row_words[i * job.count + s]; slots; slots &= slots - 1) {
          const int slot = __builtin_ctz(slots);
          F xi[kBlock];
          noise.draw(tables, job.slot_keys[s * kSlotsPerWord + slot], xi);
          for (int v = 0; v < kBlock; ++v) {
            const M fires = nonzero(load(words + v * kLanes) & U(1u << slot));
            const F moved = pulse(device, b.c[v], b.w[v], load_mask(up, v), F(1.0f), sigma, xi[v],
                                  additive);
            b.w[v] = select(fires, moved, b.w[v]);
          }
        }
      }
    }
    b.store_to(a, i * a.cols + j, a.cols - j);
  });
}

// No trains: the expected update of the response functions, sample by sample.
template <class Device>
void expected_rows(const UpdateJob& job, const Device& device, int64_t row0, int64_t row1) {
  const UpdateArgs& a = *job.args;
  for (int64_t i = row0; i < row1; ++i) {
    for (int64_t j = 0; j < a.cols; j += kGroup) {
      Block<Device> b;
      b.load_from(a, device, i * a.cols + j, a.cols - j);
      for (int64_t s = 0; s < a.batch; ++s) {
        const float d = a.d[s * a.rows + i];
        if (d == 0.0f) continue;
        const F pulses((a.train.lr * pulseline::absolute(d)) / a.train.granularity);
        for (int v = 0; v < kBlock; ++v) {
          const int64_t o = j + v * kLanes;
          const F x = load_partial(a.x + s * a.cols + o, a.cols - o);
          const M up = d > 0.0f ? is_negative(x) : is_negative(F(0.0f) - x);
          const F moved = fma(pulses * absolute(x), device.step(b.c[v], b.w[v], up), b.w[v]);
          b.w[v] = clip(moved, b.c[v].hi, b.c[v].lo);
        }
      }
      b.store_to(a, i * a.cols + j, a.cols - j);
    }
  }
}

template <class Device>
void exact(const UpdateJob& job, const void* device, int64_t row0, int64_t row1) {
  const Device& d = *static_cast<const Device*>(device);
  if (d.p.pulsed.dw_min_std == 0.0f) return exact_rows<Device, 0>(job, d, row0, row1);
  if (d.additive_noise()) return exact_rows<Device, 2>(job, d, row0, row1);
  exact_rows<Device, 1>(job, d, row0, row1);
}
template <class Device>
void strict(const UpdateJob& job, const void* device, int64_t row0, int64_t row1) {
  strict_rows(job, *static_cast<const Device*>(device), row0, row1);
}
template <class Device>
void expected(const UpdateJob& job, const void* device, int64_t row0, int64_t row1) {
  expected_rows(job, *static_cast<const Device*>(device), row0, row1);
}

}  // namespace
}  // namespace pulseline::cpu
