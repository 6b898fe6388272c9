#pragma once
// The vocabulary of simd_baseline.h in sixteen lanes of AVX-512 (F, BW, DQ, VL); with VPOPCNTDQ,
// BITALG and VNNI where the object is compiled for them (isa_avx512.cpp).
#include <immintrin.h>

#include <cstdint>

#include "core/rng.h"

namespace pulseline::cpu {
namespace {

constexpr int kLanes = 16;
constexpr int kUnroll = 8;  // of the loops over the vectors of a block
constexpr bool kFusedRead = true;

struct F {
  __m512 v;
  F() = default;
  PL_HD F(__m512 x) : v(x) {}
  PL_HD explicit F(float x) : v(_mm512_set1_ps(x)) {}
};
struct U {
  __m512i v;
  U() = default;
  PL_HD U(__m512i x) : v(x) {}
  PL_HD explicit U(uint32_t x) : v(_mm512_set1_epi32(int(x))) {}
};
struct M {
  __mmask16 v;
};

PL_HD F operator+(F a, F b) { return _mm512_add_ps(a.v, b.v); }
PL_HD F operator-(F a, F b) { return _mm512_sub_ps(a.v, b.v); }
PL_HD F operator*(F a, F b) { return _mm512_mul_ps(a.v, b.v); }
PL_HD F operator/(F a, F b) { return _mm512_div_ps(a.v, b.v); }
PL_HD M operator<(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
PL_HD U operator+(U a, U b) { return _mm512_add_epi32(a.v, b.v); }
PL_HD U operator-(U a, U b) { return _mm512_sub_epi32(a.v, b.v); }
PL_HD U operator*(U a, U b) { return _mm512_mullo_epi32(a.v, b.v); }
PL_HD U operator&(U a, U b) { return _mm512_and_si512(a.v, b.v); }
PL_HD U operator|(U a, U b) { return _mm512_or_si512(a.v, b.v); }
PL_HD U operator^(U a, U b) { return _mm512_xor_si512(a.v, b.v); }
PL_HD U operator>>(U a, int s) { return _mm512_srli_epi32(a.v, unsigned(s)); }
PL_HD U operator<<(U a, int s) { return _mm512_slli_epi32(a.v, unsigned(s)); }

PL_HD U xor3(U a, U b, U c) { return _mm512_ternarylogic_epi32(a.v, b.v, c.v, 0x96); }
PL_HD U and_xor(U a, U b, U c) { return _mm512_ternarylogic_epi32(a.v, b.v, c.v, 0x60); }
// x >> S with `high` moved in from above.
template <int S>
PL_HD U shift_in(U x, uint32_t high) {
#if defined(__AVX512VBMI2__)
  return _mm512_shldi_epi32(U(high).v, x.v, 32 - S);
#else
  return (x >> S) | U(high << (32 - S));
#endif
}

PL_HD U as_bits(F x) { return _mm512_castps_si512(x.v); }
PL_HD F as_float(U x) { return _mm512_castsi512_ps(x.v); }
PL_HD F to_float(U x) { return _mm512_cvtepi32_ps(x.v); }
PL_HD U truncate(F x) { return _mm512_cvttps_epi32(x.v); }
PL_HD F select(M m, F a, F b) { return _mm512_mask_blend_ps(m.v, b.v, a.v); }
PL_HD U select(M m, U a, U b) { return _mm512_mask_blend_epi32(m.v, b.v, a.v); }
PL_HD F min(F a, F b) { return _mm512_min_ps(a.v, b.v); }
PL_HD F max(F a, F b) { return _mm512_max_ps(a.v, b.v); }
PL_HD F absolute(F x) { return as_float(as_bits(x) & U(0x7fffffffu)); }
PL_HD F square_root(F x) { return _mm512_sqrt_ps(x.v); }
PL_HD F fma(F a, F b, F c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
PL_HD F mac(F a, F b, F c) { return fma(a, b, c); }
PL_HD F split_exponent(F x, F& e) {
  const U u = as_bits(x), s = (u - U(0x3f3504f3u)) & U(0xff800000u);
  e = _mm512_cvtepi32_ps(_mm512_srai_epi32(s.v, 23));
  return as_float(u - s);
}

PL_HD U lane_index() {
  return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
PL_HD F load(const float* p) { return _mm512_loadu_ps(p); }
PL_HD U load(const uint32_t* p) { return _mm512_loadu_si512(p); }
PL_HD void store(float* p, F x) { _mm512_storeu_ps(p, x.v); }
PL_HD void store(uint32_t* p, U x) { _mm512_storeu_si512(p, x.v); }
PL_HD __mmask16 first_lanes(int64_t n) {
  return n <= 0 ? __mmask16(0) : n < 16 ? __mmask16((1u << n) - 1) : __mmask16(0xffff);
}
PL_HD F load_partial(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
PL_HD U load_partial(const uint32_t* p, int64_t n) {
  return _mm512_maskz_loadu_epi32(first_lanes(n), p);
}
PL_HD void store_partial(float* p, F x, int64_t n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), x.v);
}

PL_HD M load_mask(const uint32_t* bits, int vector) {
  const uint16_t* half = reinterpret_cast<const uint16_t*>(bits) + vector;
  return {_load_mask16(reinterpret_cast<__mmask16*>(const_cast<uint16_t*>(half)))};
}
PL_HD uint32_t to_bits(M m) { return m.v; }
PL_HD M is_negative(F x) { return {_mm512_movepi32_mask(as_bits(x).v)}; }
PL_HD M nonzero(U x) { return {_mm512_test_epi32_mask(x.v, x.v)}; }
PL_HD bool any(M m) { return m.v != 0; }
PL_HD bool any(U x) { return nonzero(x).v != 0; }
PL_HD U max_signed(U a, U b) { return _mm512_max_epi32(a.v, b.v); }
PL_HD uint32_t max_lane(U x) { return uint32_t(_mm512_reduce_max_epi32(x.v)); }

#if defined(__AVX512VPOPCNTDQ__) && defined(__AVX512BITALG__)
PL_HD U popcount16(U x) { return _mm512_popcnt_epi16(x.v); }
PL_HD U popcount(U x) { return _mm512_popcnt_epi32(x.v); }
#else
PL_HD U popcount16(U x) {
  const __m512i table =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const __m512i low = _mm512_set1_epi8(15);
  const __m512i a = _mm512_shuffle_epi8(table, _mm512_and_si512(x.v, low));
  const __m512i b = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(x.v, 4), low));
  return _mm512_maddubs_epi16(_mm512_add_epi8(a, b), _mm512_set1_epi8(1));
}
PL_HD U popcount(U x) { return _mm512_madd_epi16(popcount16(x).v, _mm512_set1_epi16(1)); }
#endif

// On float bits: exact for lo <= -0 and hi >= +0, one cycle each.
PL_HD F clip(F w, F hi, F lo) {
  const __m512i a = _mm512_min_epi32(as_bits(w).v, as_bits(hi).v);
  return _mm512_castsi512_ps(_mm512_min_epu32(a, as_bits(lo).v));
}

PL_HD F byte_sum(U h) {
#if defined(__AVX512VNNI__)
  return to_float(U(_mm512_dpbusd_epi32(_mm512_set1_epi32(-kByteMean), h.v,
                                        _mm512_set1_epi32(int(kByteWeights)))));
#else
  const __m512i pairs = _mm512_maddubs_epi16(h.v, _mm512_set1_epi32(int(kByteWeights)));
  const U sum = _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
  return to_float(sum - U(uint32_t(kByteMean)));
#endif
}

PL_HD F lookup(const float* table, U i) {  // i < 16
  return _mm512_permutexvar_ps(i.v, _mm512_loadu_ps(table));
}

// r[k] lane l = w[l * stride + k]. Whole cache lines are loaded: rows a power of two apart share
// one set of the first-level cache and would evict each other between partial loads.
PL_HD void load_transposed(const float* w, int64_t stride, F* r) {
  __m512 t[16];
#pragma GCC unroll 4
  for (int s = 0; s < 4; ++s) {  // gather 4 x 4 blocks: t[4 g + s] 128-bit lane l = row s + 4 l
    const __m512 a = load(w + s * stride).v, b = load(w + (s + 4) * stride).v;
    const __m512 c = load(w + (s + 8) * stride).v, d = load(w + (s + 12) * stride).v;
    const __m512 p = _mm512_shuffle_f32x4(a, b, 0x44), q = _mm512_shuffle_f32x4(c, d, 0x44);
    const __m512 u = _mm512_shuffle_f32x4(a, b, 0xee), v = _mm512_shuffle_f32x4(c, d, 0xee);
    t[s] = _mm512_shuffle_f32x4(p, q, 0x88);
    t[4 + s] = _mm512_shuffle_f32x4(p, q, 0xdd);
    t[8 + s] = _mm512_shuffle_f32x4(u, v, 0x88);
    t[12 + s] = _mm512_shuffle_f32x4(u, v, 0xdd);
  }
#pragma GCC unroll 4
  for (int g = 0; g < 16; g += 4) {  // transpose inside each 128-bit lane
    const __m512 a = _mm512_unpacklo_ps(t[g], t[g + 1]), b = _mm512_unpackhi_ps(t[g], t[g + 1]);
    const __m512 c = _mm512_unpacklo_ps(t[g + 2], t[g + 3]);
    const __m512 d = _mm512_unpackhi_ps(t[g + 2], t[g + 3]);
    r[g] = _mm512_shuffle_ps(a, c, 0x44);
    r[g + 1] = _mm512_shuffle_ps(a, c, 0xee);
    r[g + 2] = _mm512_shuffle_ps(b, d, 0x44);
    r[g + 3] = _mm512_shuffle_ps(b, d, 0xee);
  }
}

// Look-ups in registers instead of arithmetic; the entries are that arithmetic's own results.
struct NoiseTables {
  F cubic[2], roots[2];
  PL_HD explicit NoiseTables(float sigma) {
    for (int h = 0; h < 2; ++h) {
      const F n = to_float(lane_index() + U(uint32_t(16 * h)));
      cubic[h] = popcount_cubic(n);
      roots[h] = square_root(n) * F(sigma);
    }
  }
  PL_HD F cubic_low(U counts) const {  // only the low five bits of a lane select
    return _mm512_permutex2var_ps(cubic[0].v, counts.v, cubic[1].v);
  }
  PL_HD F cubic_high(U counts) const { return cubic_low(counts >> 16); }
  PL_HD F root(U n) const { return _mm512_permutex2var_ps(roots[0].v, n.v, roots[1].v); }
};

}  // namespace
}  // namespace pulseline::cpu
