// The rule of a buffered transfer: reads are counted in a digital buffer, whole pulses leave it.
// One pass over the columns that were read; every operation is rounded on its own, in the order of
// the tensor operations that the rule is stated in, so that there is one set of bits.
#include "cpu/cpu.h"
#include "cpu/threads.h"

namespace pulseline::cpu {
namespace {

constexpr float kNoWhole = -2147483648.0f;  // what a NaN counts as: no number of pulses

// Whole pulses of a count; NaN passes both comparisons.
inline float whole_pulses(float h, float most) {
  const float above = h < -most ? -most : h, n = above > most ? most : above;
  return n == n ? float(int32_t(n)) : kNoWhole;
}

constexpr int64_t kAhead = 8;  // rows, whose lines are far apart and asked for in time

inline void prefetch(const float* row, int64_t count) {
  for (int64_t t = 0; t < count; t += 16) __builtin_prefetch(row + t, 1);
}

template <bool MEAN, bool FORGET>
void count_row(const Buffered& b, int64_t i) {
  const int64_t o = i * b.cols + b.column, count = b.count;
  const float* __restrict values = b.values + i * count;
  const float* __restrict signs = b.sign_columns + b.column;
  const float* __restrict rho = MEAN ? b.rho + o : nullptr;
  float* __restrict held = b.held + o;
  float* __restrict mean = MEAN ? b.mean + o : nullptr;
  float* __restrict pulses = b.pulses + i * count;
  const float sign = b.sign_rows ? b.sign_rows[i] : 1.0f;
  const float rate = b.rate, most = b.most, keep = b.keep, beta = b.beta;
  const float momentum = b.momentum, spent = b.spent;
  const int64_t ahead = (b.rows - 1 - i < kAhead ? b.rows - 1 - i : kAhead) * b.cols;
  prefetch(held + ahead, count);
  if (MEAN) prefetch(mean + ahead, count);
  if (MEAN) prefetch(rho + ahead, count);
#pragma GCC ivdep
  for (int64_t t = 0; t < count; ++t) {
    const float z = values[t];
    const float value = (MEAN ? z - rho[t] : z) * (signs[t] * sign);
    const float h = held[t] * keep + value * rate;
    const float n = whole_pulses(h, most);
    const float left = FORGET ? h * momentum : h - n * spent;
    held[t] = FORGET && n == 0.0f ? h : left;
    if (MEAN) mean[t] = mean[t] + (z - mean[t]) * beta;
    pulses[t] = n;
  }
}

template <bool MEAN>
void count_rows(const Buffered& b, int64_t row0, int64_t row1) {
  for (int64_t i = row0; i < row1; ++i)
    b.forget ? count_row<MEAN, true>(b, i) : count_row<MEAN, false>(b, i);
}

}  // namespace

void count_buffered(const Buffered& shared, int threads) {
  const Buffered b = shared;
  if (b.rows * b.count < kSerialCrosspoints) threads = 1;
  parallel_chunks(b.rows, int64_t(48), threads, [&](int64_t r0, int64_t r1) {
    b.mean ? count_rows<true>(b, r0, r1) : count_rows<false>(b, r0, r1);
  });
}

}  // namespace pulseline::cpu
