// What happens between pulses: one event, a reset, write noise. Included by kernels.inl.
#include "core/retention.h"

namespace pulseline::cpu {
namespace {

// Calls body(row, column, offset, n) for every kLanes columns of the rows, the first n of which
// exist.
template <class Body>
PL_HD void for_vectors(int64_t row0, int64_t row1, int64_t cols, Body body) {
  for (int64_t i = row0; i < row1; ++i)
    for (int64_t j = 0; j < cols; j += kLanes)
      body(i, j, i * cols + j, cols - j < kLanes ? cols - j : int64_t(kLanes));
}
template <class T>
PL_HD auto load_lanes(const T* p, int64_t n) {
  return n == kLanes ? load(p) : load_partial(p, n);
}
PL_HD void store_lanes(float* p, F x, int64_t n) {
  n == kLanes ? store(p, x) : store_partial(p, x, n);
}
PL_HD M moves(const uint32_t* step, int64_t n) {
  return nonzero(load_lanes(step, n) & U(0x7fff7fffu));
}

void retain(const RetentionArgs& shared, Keys key, int64_t row0, int64_t row1) {
  const RetentionArgs a = shared;
  for_vectors(row0, row1, a.cols, [&](int64_t i, int64_t j, int64_t o, int64_t n) PL_LAMBDA {
    const F w = load_lanes(a.w + o, n), xi = group_normal(i, a.col0 + j, key);
    const int64_t at = o - a.first * a.cols;
    const RetentionPairs<U> c = {load_lanes(a.fade + at, n), load_lanes(a.walk + at, n)};
    const U bound = load_lanes(a.bound + at, n);
    const F aged = a.purpose == kReset ? reset(c, bound, a.amount, xi)
                                       : keep_nan(w, age(w, c, bound, a.amount, xi));
    store_lanes(a.w + o, select(moves(a.step + at, n), aged, w), n);
  });
}

void write_noise(const WriteNoiseJob& shared, int64_t row0, int64_t row1) {
  const WriteNoiseJob job = shared;
  const F deviation(job.deviation);
  for_vectors(row0, row1, job.cols, [&](int64_t i, int64_t j, int64_t o, int64_t n) PL_LAMBDA {
    const F hidden = load_lanes(job.hidden + o, n);
    const int64_t at = o - job.first * job.cols;
    const M noisy = moves(job.step + at, n);
    if (!job.last) {
      const F written = fma(deviation, group_normal(job.row0 + i, job.col0 + j, job.key), hidden);
      return store_lanes(job.visible + o, select(noisy, written, hidden), n);
    }
    // Every lane has the keys of its own last sample; none: last is -1, the keys do not matter.
    alignas(64) uint32_t keys[2][kLanes];
    bool any_written = false;
    for (int64_t l = 0; l < kLanes; ++l) {
      const int32_t last = l < n ? job.last[at + l] : -1;
      any_written |= last >= 0;
      const Keys key = job.keys[last < 0 ? 0 : last];
      keys[0][l] = key.k0;
      keys[1][l] = key.k1;
    }
    if (!any_written) return;
    const U base = lane_index() * U(kColumnStride) +
                   U(uint32_t(job.row0 + i) * kRowStride + uint32_t(job.col0 + j) * kColumnStride);
    const F xi = byte_sum_polynomial(byte_sum(hash(base, load(keys[0]), load(keys[1]))));
    const F visible = load_lanes(job.visible + o, n);
    const U last = load_lanes(reinterpret_cast<const uint32_t*>(job.last) + at, n);
    const F fresh = select(noisy, fma(deviation, xi, hidden), visible);
    store_lanes(job.visible + o, select(is_negative(as_float(last)), visible, fresh), n);
  });
}

// last[column] of one row: the sample of the slice whose pulses came last; it stays as it is where
// none came.
void mark_last(const UpdateJob& job, const void* state, int64_t row, int64_t) {
  const int64_t cols = job.args->cols;
  float* const last = reinterpret_cast<float*>(*static_cast<int32_t* const*>(state));
  for (int64_t s = 0; s < job.count; ++s) {
    const uint32_t slots = job.row_words[row * job.count + s];
    if (!slots) continue;
    const uint32_t* columns = job.column_words + s * job.padded_cols;
    const F source = as_float(U(uint32_t(job.train_words[s].source)));
    for (int64_t j = 0; j < cols; j += kLanes) {
      const U hits = load(columns + j) & U(slots);
      if (!any(hits)) continue;
      const int64_t n = cols - j < kLanes ? cols - j : int64_t(kLanes);
      store_lanes(last + j, select(nonzero(hits), source, load_lanes(last + j, n)), n);
    }
  }
}

}  // namespace
}  // namespace pulseline::cpu
