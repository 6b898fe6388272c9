#pragma once
// Randomness is a function of (seed, tile, purpose, k, index, draw): no stream, no state.
//
// Keys: Philox4x32-10 (Salmon et al., SC'11) with
//   key     = (seed_lo, seed_hi ^ tile)
//   counter = (index, k_lo, purpose << 24 | draw, k_hi)
// Inner loops and what is drawn per crosspoint: a stateless hash keyed by two Philox words per
// (tile, purpose, k, draw).
// The numbering below is part of the physics: changing it changes every result. It is frozen by
// known-answer tests and recorded in checkpoints as kNumbering.
#include <cstdint>

#include "core/math.h"

namespace pulseline {

constexpr uint32_t kNumbering = 2;

enum Purpose : uint32_t {
  kDeviceParameters = 0,  // draw = number of the parameter, see parameters.h
  kInitialisation = 1,
  kForwardOutput = 2,  // draw = second pass << 23 | segment << 4 | bound-management round
  kForwardInput = 3,   // draw = second pass << 23 | row block << 4 | round, hashed with the column
  kBackwardOutput = 4,
  kBackwardInput = 5,
  kEvaluationOutput = 6,
  kEvaluationInput = 7,
  kPulses = 8,            // draw = word of a long pulse train; words 0,1 key columns, 2,3 key rows
  kCycleNoise = 9,        // exact: draw = word
  kSlotNoise = 10,        // strict: draw = word << 5 | slot
  kGroupNoise = 11,       // grouped, moments: k of the group's first sample
  kDiffusion = 12,        // k = number of the event
  kReset = 13,            // k = samples seen so far
  kWriteNoise = 14,       // k of the sample whose pulses came last
  kProgramming = 15,      // write noise of programming: k = samples pulsed so far
  kRowRank = 16,          // low-rank noise, index = row; k, draw as kCycleNoise or kGroupNoise
  kColumnRank = 17,       // the same, index = column
  kForwardRounding = 20,  // draw = (row block or segment) << 6 | output << 5 | pass << 4 | round
  kBackwardRounding = 21,
  kEvaluationRounding = 22,
  kReadLines = 23,  // index = output, k = segment << 1 | transposed; words: noise, non-linearity
  kTransferOutput = 24,    // one-hot reads: k = number of the read, hashed with the row; draw =
                           // second pass << 23 | (16: the line that is driven)
  kTransferRounding = 25,  // their stochastic rounding: draw as of kForwardRounding
  kCountedPulses = 26,     // k = number of the line, hashed with row and column; draw = word, of
                           // strict word << 5 | slot; kWritten: noise of the write
  kChopper = 27,           // index = line, k = sweep, draw: 0 columns, 1 rows
  kColumnChoice = 28,      // k = number of the transfer
};

constexpr uint32_t kWritten = 1u << 23;

struct Philox4 {
  uint32_t v[4];
};

PL_HD Philox4 philox4x32(uint32_t k0, uint32_t k1, uint32_t c0, uint32_t c1, uint32_t c2,
                         uint32_t c3) {
#pragma GCC unroll 10
  for (int r = 0; r < 10; ++r) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    const uint32_t n0 = uint32_t(p1 >> 32) ^ c1 ^ k0, n2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c0 = n0;
    c1 = uint32_t(p1);
    c2 = n2;
    c3 = uint32_t(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Whose randomness: one crossbar of one run. Seeds are below 2^32, so that (seed, tile) is the key
// and no two streams share one.
struct Stream {
  uint64_t seed;
  uint32_t tile;        // tile_id | array << 24, see identity.py
  uint32_t trains = 0;  // of updates: xor with the tile gives that whose trains they take
};

PL_HD Philox4 draw4(const Stream& s, uint32_t purpose, uint64_t k, uint32_t index, uint32_t draw) {
  return philox4x32(uint32_t(s.seed), uint32_t(s.seed >> 32) ^ s.tile, index, uint32_t(k),
                    purpose << 24 | draw, uint32_t(k >> 32));
}

struct Keys {
  uint32_t k0, k1;
};

PL_HD Keys draw_keys(const Stream& s, uint32_t purpose, uint64_t k, uint32_t draw) {
  const Philox4 r = draw4(s, purpose, k, 0, draw);
  return {r.v[0], r.v[1]};
}

// ---- the hash of inner loops; U is uint32_t or a SIMD vector of it ----

constexpr uint32_t kRowStride = 0x85ebca77u;     // multiplies a row, a slot or a word number
constexpr uint32_t kColumnStride = 0x9E3779B1u;  // multiplies a column or an output line

// First round and key k1: also the source of the dither bits of `popcount_normal`. Keys are
// uint32_t, or a U of one key a lane.
template <class U, class K>
PL_HD U hash_inner(U base, K k0, K k1) {
  U x = base ^ U(k0);
  x = x ^ (x >> 16);
  x = x * U(0x7feb352du);
  return xor3(x, x >> 15, U(k1));
}
template <class U>
PL_HD U hash_outer(U x) {
  x = x * U(0x846ca68bu);
  return x ^ (x >> 16);
}
// base = row * kRowStride + column * kColumnStride
template <class U, class K>
PL_HD U hash(U base, K k0, K k1) {
  return hash_outer(hash_inner(base, k0, k1));
}

// [0, 1) on a grid of 2^-24: exact in float.
template <class U>
PL_HD auto uniform24(U x) {
  const auto n = to_float(x >> 8);
  return n * decltype(n)(0x1p-24f);
}

// ---- gaussians of inner loops ----

// Cycle noise: popcount of 16 hash bits through a cubic (variance and kurtosis of a normal once the
// dither is added) plus a uniform dither in [1/2, 1). Range +-4.6 sigma, KS distance .005.
// One hash serves two columns: c and c + 16 of a group of 32, from its low and its high half.
constexpr float kCubicLinear = 0.486047105f, kCubicThird = 0.00075407764f, kCubicShift = -0.75f;

template <class F>
PL_HD F popcount_cubic(F count) {
  const F v = count - F(8.0f);
  return fma(v, fma(F(kCubicThird), v * v, F(kCubicLinear)), F(kCubicShift));
}

PL_HD float cycle_normal(uint32_t row, uint32_t column, Keys key) {
  const uint32_t low = column & ~16u, base = row * kRowStride + low * kColumnStride;
  const uint32_t inner = hash_inner(base, key.k0, key.k1), h = hash_outer(inner);
  const uint32_t bits = (column & 16u) ? h >> 16 : h & 0xffffu;
  const uint32_t dither = (column & 16u) ? inner >> 9 : inner & 0x7fffffu;
  uint32_t count = 0;
  for (int b = 0; b < 16; ++b) count += (bits >> b) & 1u;
  return popcount_cubic(to_float(count)) + as_float(dither | 0x3f000000u);
}

// Low-rank noise of cycles and groups: xi_ij = kRankUnit sum_{r < 8} U_ir V_jr. A factor is a bf16
// number cut out of 16 random bits by one mask: sign, fraction and, on the row side, two bits of
// the exponent (magnitudes U in [1/8, 2), V in [1, 2)). Terms 2q and 2q + 1 are the low and the
// high half of Philox word q. Products lie on a grid of 2^-17 and sums below 32, so that fp32 holds
// them exactly in any order: a tensor core, a vector unit and the reference give the same bits.
// Mean and covariances are those of independent normals, excess kurtosis .018; only joint
// moments of fourth and higher order inside one draw differ (two rows by two columns: 1/8, not 0).
constexpr int kRankWords = 4;
// Variance of the sum: 8 E[U^2] E[V^2] = 8 (85/256) m^2, m = E[(1 + f/128)^2] = 38037.5/16384.
constexpr float kRankUnit = 0.2642856f;  // its root, inverted

template <class U>
PL_HD U rank_row(U bits) {
  return (bits & U(0x81ff81ffu)) | U(0x3e003e00u);
}
template <class U>
PL_HD U rank_column(U bits) {
  return (bits & U(0x807f807fu)) | U(0x3f803f80u);
}
// The sum, without its unit, of one crosspoint.
PL_HD float rank_sum(const Philox4& row, const Philox4& column) {
  float sum = 0.0f;
  for (int q = 0; q < kRankWords; ++q) {
    const uint32_t u = rank_row(row.v[q]), v = rank_column(column.v[q]);
    sum = sum + as_float(u << 16) * as_float(v << 16);
    sum = sum + as_float(u & 0xffff0000u) * as_float(v & 0xffff0000u);
  }
  return sum;
}

// Reads, groups and device parameters: weighted sum of the four bytes of a hash through an odd
// polynomial.
// Range +-4.85 sigma, excess kurtosis < .001, KS distance .0005.
constexpr uint32_t kByteWeights = 0x1b1d1f20u;  // 32, 31, 29, 27 from the lowest byte up
constexpr int32_t kByteMean = 15172;

// F(sum of weight * byte) - kByteMean comes in as `centred`.
template <class F>
PL_HD F byte_sum_polynomial(F centred) {
  const F y = fma(centred, F(2.1744084e-4f), F(-1.087e-4f)), z = y * y;
  F p = F(4.27348e-4f);
  p = fma(p, z, F(-2.45236e-3f));
  p = fma(p, z, F(1.91013e-2f));
  p = fma(p, z, F(1.0f));
  return y * p;
}

PL_HD float byte_sum(uint32_t h) {  // centred
#if defined(__CUDA_ARCH__)
  const uint32_t sum = __dp4a(h, kByteWeights, 0u);
#else
  const uint32_t sum =
      (h & 255u) * 32u + (h >> 8 & 255u) * 31u + (h >> 16 & 255u) * 29u + (h >> 24) * 27u;
#endif
  return float(int32_t(sum) - kByteMean);
}
PL_HD float byte_sum_normal(uint32_t h) { return byte_sum_polynomial(byte_sum(h)); }

}  // namespace pulseline
