#pragma once
// The vocabulary of simd_baseline.h in eight lanes of AVX2 + FMA.
#include <immintrin.h>

#include <cstdint>

#include "core/rng.h"

namespace pulseline::cpu {
namespace {

constexpr int kLanes = 8;
constexpr int kUnroll = 4;  // of the loops over the vectors of a block
constexpr bool kFusedRead = true;

struct F {
  __m256 v;
  F() = default;
  PL_HD F(__m256 x) : v(x) {}
  PL_HD explicit F(float x) : v(_mm256_set1_ps(x)) {}
};
struct U {
  __m256i v;
  U() = default;
  PL_HD U(__m256i x) : v(x) {}
  PL_HD explicit U(uint32_t x) : v(_mm256_set1_epi32(int(x))) {}
};
struct M {
  __m256 v;  // sign bit of each lane
};

PL_HD F operator+(F a, F b) { return _mm256_add_ps(a.v, b.v); }
PL_HD F operator-(F a, F b) { return _mm256_sub_ps(a.v, b.v); }
PL_HD F operator*(F a, F b) { return _mm256_mul_ps(a.v, b.v); }
PL_HD F operator/(F a, F b) { return _mm256_div_ps(a.v, b.v); }
PL_HD M operator<(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
PL_HD U operator+(U a, U b) { return _mm256_add_epi32(a.v, b.v); }
PL_HD U operator-(U a, U b) { return _mm256_sub_epi32(a.v, b.v); }
PL_HD U operator*(U a, U b) { return _mm256_mullo_epi32(a.v, b.v); }
PL_HD U operator&(U a, U b) { return _mm256_and_si256(a.v, b.v); }
PL_HD U operator|(U a, U b) { return _mm256_or_si256(a.v, b.v); }
PL_HD U operator^(U a, U b) { return _mm256_xor_si256(a.v, b.v); }
PL_HD U operator>>(U a, int s) { return _mm256_srli_epi32(a.v, s); }
PL_HD U operator<<(U a, int s) { return _mm256_slli_epi32(a.v, s); }

PL_HD U xor3(U a, U b, U c) { return a ^ b ^ c; }
PL_HD U and_xor(U a, U b, U c) { return a & (b ^ c); }
// x >> S with `high` moved in from above.
template <int S>
PL_HD U shift_in(U x, uint32_t high) {
  return (x >> S) | U(high << (32 - S));
}

PL_HD U as_bits(F x) { return _mm256_castps_si256(x.v); }
PL_HD F as_float(U x) { return _mm256_castsi256_ps(x.v); }
PL_HD F to_float(U x) { return _mm256_cvtepi32_ps(x.v); }
PL_HD U truncate(F x) { return _mm256_cvttps_epi32(x.v); }
PL_HD F select(M m, F a, F b) { return _mm256_blendv_ps(b.v, a.v, m.v); }
PL_HD U select(M m, U a, U b) { return as_bits(select(m, as_float(a), as_float(b))); }
PL_HD F min(F a, F b) { return _mm256_min_ps(a.v, b.v); }
PL_HD F max(F a, F b) { return _mm256_max_ps(a.v, b.v); }
PL_HD F absolute(F x) { return as_float(as_bits(x) & U(0x7fffffffu)); }
PL_HD F square_root(F x) { return _mm256_sqrt_ps(x.v); }
PL_HD F fma(F a, F b, F c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
PL_HD F mac(F a, F b, F c) { return fma(a, b, c); }
PL_HD F split_exponent(F x, F& e) {
  const U u = as_bits(x), s = (u - U(0x3f3504f3u)) & U(0xff800000u);
  e = _mm256_cvtepi32_ps(_mm256_srai_epi32(s.v, 23));
  return as_float(u - s);
}

PL_HD U lane_index() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
PL_HD F load(const float* p) { return _mm256_loadu_ps(p); }
PL_HD U load(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
PL_HD void store(float* p, F x) { _mm256_storeu_ps(p, x.v); }
PL_HD void store(uint32_t* p, U x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.v); }
PL_HD __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n < 0 ? 0 : n < 8 ? n : 8)), lane_index().v);
}
PL_HD F load_partial(const float* p, int64_t n) { return _mm256_maskload_ps(p, first_lanes(n)); }
PL_HD U load_partial(const uint32_t* p, int64_t n) {
  return _mm256_maskload_epi32(reinterpret_cast<const int*>(p), first_lanes(n));
}
PL_HD void store_partial(float* p, F x, int64_t n) { _mm256_maskstore_ps(p, first_lanes(n), x.v); }

PL_HD M load_mask(const uint32_t* bits, int vector) {
  const U b(uint32_t(reinterpret_cast<const uint8_t*>(bits)[vector]));
  const U lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return {_mm256_castsi256_ps(_mm256_cmpeq_epi32((b & lane).v, lane.v))};
}
PL_HD uint32_t to_bits(M m) { return uint32_t(_mm256_movemask_ps(m.v)); }
PL_HD M is_negative(F x) { return {x.v}; }
PL_HD M nonzero(U x) {
  const __m256i zero = _mm256_cmpeq_epi32(x.v, _mm256_setzero_si256());
  return {_mm256_castsi256_ps(_mm256_xor_si256(zero, _mm256_set1_epi32(-1)))};
}
PL_HD bool any(M m) { return _mm256_movemask_ps(m.v) != 0; }
PL_HD bool any(U x) { return !_mm256_testz_si256(x.v, x.v); }
PL_HD U max_signed(U a, U b) { return _mm256_max_epi32(a.v, b.v); }
PL_HD uint32_t max_lane(U x) {
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(x.v), _mm256_extracti128_si256(x.v, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
  return uint32_t(_mm_cvtsi128_si32(m));
}

PL_HD __m256i popcount8(U x) {
  const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                         0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i low = _mm256_set1_epi8(15);
  const __m256i a = _mm256_shuffle_epi8(table, _mm256_and_si256(x.v, low));
  const __m256i b = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x.v, 4), low));
  return _mm256_add_epi8(a, b);
}
PL_HD U popcount16(U x) { return _mm256_maddubs_epi16(popcount8(x), _mm256_set1_epi8(1)); }
PL_HD U popcount(U x) { return _mm256_madd_epi16(popcount16(x).v, _mm256_set1_epi16(1)); }

// On float bits: exact for lo <= -0 and hi >= +0, one cycle each.
PL_HD F clip(F w, F hi, F lo) {
  const __m256i a = _mm256_min_epi32(as_bits(w).v, as_bits(hi).v);
  return _mm256_castsi256_ps(_mm256_min_epu32(a, as_bits(lo).v));
}

PL_HD F byte_sum(U h) {  // unsigned bytes times signed weights: pairs stay below 2^15
  const __m256i pairs = _mm256_maddubs_epi16(h.v, _mm256_set1_epi32(int(kByteWeights)));
  const U sum = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  return to_float(sum - U(uint32_t(kByteMean)));
}

PL_HD F lookup(const float* table, U i) {  // i < 16
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), i.v);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), i.v);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps((i << 28).v));
}

// r[k] lane l = w[l * stride + k]
PL_HD void load_transposed(const float* w, int64_t stride, F* r) {
#pragma GCC unroll 8
  for (int l = 0; l < kLanes; ++l) r[l] = load(w + l * stride);
  __m256 t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 4) {  // 4 x 4 blocks inside each 128-bit half
    const __m256 a = _mm256_unpacklo_ps(r[i].v, r[i + 1].v);
    const __m256 b = _mm256_unpackhi_ps(r[i].v, r[i + 1].v);
    const __m256 c = _mm256_unpacklo_ps(r[i + 2].v, r[i + 3].v);
    const __m256 d = _mm256_unpackhi_ps(r[i + 2].v, r[i + 3].v);
    t[i] = _mm256_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
    t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
  }
}

struct NoiseTables {
  F sigma;
  PL_HD explicit NoiseTables(float s) : sigma(s) {}
  PL_HD F cubic_low(U counts) const { return popcount_cubic(to_float(counts & U(0xffffu))); }
  PL_HD F cubic_high(U counts) const { return popcount_cubic(to_float(counts >> 16)); }
  PL_HD F root(U n) const { return square_root(to_float(n)) * sigma; }
};

}  // namespace
}  // namespace pulseline::cpu
