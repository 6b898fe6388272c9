#pragma once
// Scalar arithmetic with the same bits on every backend: no libm transcendental is ever called.
// Each routine is one polynomial over IEEE +, *, /, sqrt and fma. The templates also accept the
// SIMD types of cpu/simd_*.h, which overload the primitives below by argument-dependent lookup.
#include <cstdint>

#include "core/macros.h"

namespace pulseline {

// ---- primitives (overloaded for SIMD types) ----

PL_HD uint32_t as_bits(float x) {
  uint32_t u;
  __builtin_memcpy(&u, &x, 4);
  return u;
}
PL_HD float as_float(uint32_t u) {
  float x;
  __builtin_memcpy(&x, &u, 4);
  return x;
}

// a*b + c rounded once. Without an FMA unit: the product is exact in double; the sum is rounded to
// odd there, so that the final rounding to float is the only one that counts.
PL_HD float fma(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#elif defined(__FMA__)
  return __builtin_fmaf(a, b, c);
#else
  const double p = double(a) * double(b), d = c;
  double s = p + d;
  const double t = s - p, e = (p - (s - t)) + (d - t);
  uint64_t u;
  __builtin_memcpy(&u, &s, 8);
  if (e != 0 && !(u & 1)) u += (e > 0) == (s > 0) ? 1 : uint64_t(-1);
  __builtin_memcpy(&s, &u, 8);
  return float(s);
#endif
}

PL_HD float square_root(float x) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(x);
#else
  return __builtin_sqrtf(x);
#endif
}
PL_HD uint32_t xor3(uint32_t a, uint32_t b, uint32_t c) { return a ^ b ^ c; }
PL_HD bool any(bool m) { return m; }
PL_HD float select(bool m, float a, float b) { return m ? a : b; }
PL_HD uint32_t select(bool m, uint32_t a, uint32_t b) { return m ? a : b; }
// One instruction on the GPU. NaN never comes in but where the result is then dropped; of two zeros
// either may come out, which no result shows: a stored weight is never -0.
#if defined(__CUDA_ARCH__)
PL_HD float max(float a, float b) { return ::fmaxf(a, b); }
PL_HD float min(float a, float b) { return ::fminf(a, b); }
#else
PL_HD float max(float a, float b) { return a > b ? a : b; }
PL_HD float min(float a, float b) { return a < b ? a : b; }
#endif
PL_HD float to_float(uint32_t n) { return float(int32_t(n)); }     // n < 2^31
PL_HD uint32_t truncate(float x) { return uint32_t(int32_t(x)); }  // 0 <= x < 2^31
PL_HD float absolute(float x) { return as_float(as_bits(x) & 0x7fffffffu); }
template <class F>
PL_HD F negate(F x) {
  using U = decltype(as_bits(x));
  return as_float(as_bits(x) ^ U(0x80000000u));
}

PL_HD float lookup(const float* table, uint32_t i) { return table[i & 15u]; }
constexpr float kInfinite = __builtin_huge_valf();

// Nearest integer, ties to even, for |x| < 2^22; larger values move by less than their ulp.
template <class F>
PL_HD F round_even(F x) {
  return (x + F(12582912.0f)) - F(12582912.0f);
}
// x = m 2^e with m in [sqrt(1/2), sqrt(2)), x normal and positive.
PL_HD float split_exponent(float x, float& e) {
  const uint32_t u = as_bits(x), shift = (u - 0x3f3504f3u) & 0xff800000u;
  e = float(int32_t(shift) >> 23);
  return as_float(u - shift);
}

// ---- elementary functions: own minimax fits, relative error stated and tested ----

constexpr float kLog2e = 0x1.715476p+0f;

// 2^t for |t| <= 120, |error| < 2e-7 relative. The rounding constant leaves the integer part of t
// in the low bits of the sum, ready to be added to the exponent.
template <class F>
PL_HD F exp2_unclamped(F t) {
  const F shifted = t + F(12582912.0f), r = t - (shifted - F(12582912.0f));
  // Estrin's order: half the latency of Horner's, which is what an exponential step waits for.
  const F z = r * r;
  const F low = fma(F(0x1.62e43p-1f), r, F(1.0f));
  const F middle = fma(F(0x1.c6aed4p-5f), r, F(0x1.ebfbdap-3f));
  const F high = fma(F(0x1.41d32cp-13f), z, fma(F(0x1.5f456ap-10f), r, F(0x1.3b2dbcp-7f)));
  const F p = fma(fma(high, z, middle), z, low);
  return as_float(as_bits(p) + (as_bits(shifted) << 23));
}

// 2^t for any t, clamped to [2^-120, 2^120].
template <class F>
PL_HD F exp2_poly(F t) {
  return exp2_unclamped(min(max(t, F(-120.0f)), F(120.0f)));
}

// ln x for normal positive x, |error| < 2e-7 max(1, |ln x|).
template <class F>
PL_HD F log_poly(F x) {
  F e;
  const F t = split_exponent(x, e) - F(1.0f);
  F p = F(-0x1.41f35ap-4f);
  p = fma(p, t, F(0x1.07cf7ep-3f));
  p = fma(p, t, F(-0x1.0cdebcp-3f));
  p = fma(p, t, F(0x1.226e6ep-3f));
  p = fma(p, t, F(-0x1.5478c2p-3f));
  p = fma(p, t, F(0x1.99a596p-3f));
  p = fma(p, t, F(-0x1.00021ep-2f));
  p = fma(p, t, F(0x1.55554ap-2f));
  const F z = t * t;
  F y = fma(t * z, p, z * F(-0.5f)) + t;
  return fma(e, F(0x1.62e43p-1f), y);
}

// log2 x for normal positive x, |error| < 4e-7 |log2 x|. Estrin's order: see exp2_unclamped.
template <class F>
PL_HD F log2_short(F x) {
  F e;
  const F t = split_exponent(x, e) - F(1.0f), z = t * t;
  const F a = fma(F(-0x1.7155b8p-1f), t, F(0x1.715472p+0f));
  const F b = fma(F(-0x1.70baf6p-2f), t, F(0x1.ec7b4p-2f));
  const F c = fma(F(-0x1.0011a2p-2f), t, F(0x1.2598f2p-2f));
  const F d = fma(F(-0x1.2a63f8p-3f), t, F(0x1.e50d78p-3f));
  return fma(fma(fma(d, z, c), z * z, fma(b, z, a)), t, e);
}

// x^p = 2^(p log2 x) for p >= 0, |error| < 4e-7 (1 + |log2 x^p|) relative; at least 2^-120, and
// x is at least 2^-100. For steps that are powers: shorter polynomials than those above.
template <class F>
PL_HD F power_poly(F x, F p) {
  const F t = max(p * log2_short(max(x, F(0x1p-100f))), F(-120.0f));
  const F shifted = t + F(12582912.0f), r = t - (shifted - F(12582912.0f)), z = r * r;
  const F low = fma(F(0x1.62e42ap-1f), r, F(1.0f));
  const F middle = fma(F(0x1.c6b6dap-5f), r, F(0x1.ebf9c2p-3f));
  const F high = fma(F(0x1.5bd97ap-10f), r, F(0x1.3ce8b2p-7f));
  const F y = fma(fma(high, z, middle), z, low);
  return as_float(as_bits(y) + (as_bits(shifted) << 23));
}

// ---- bf16: the storage format of device parameters ----

// Nearest, ties to even, in the low half. U is uint32_t or a SIMD vector of it.
template <class F>
PL_HD auto bf16_nearest(F x) {
  const auto u = as_bits(x);
  using U = decltype(as_bits(x));
  return (u + U(0x7fffu) + ((u >> 16) & U(1u))) >> 16;
}
// Two bf16 values in one word: `first` in the upper half.
template <class U>
PL_HD U pack_pair(U first, U second) {
  return first << 16 | second;
}
template <class U>
PL_HD auto pair_first(U pair) {
  return as_float(pair & U(0xffff0000u));
}
template <class U>
PL_HD auto pair_second(U pair) {
  return as_float(pair << 16);
}

}  // namespace pulseline
