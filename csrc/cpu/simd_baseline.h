#pragma once
// The vocabulary that kernels are written in, four lanes of portable GNU vectors (SSE2 on x86-64).
// simd_avx2.h and simd_avx512.h spell the same words; kernels never name an instruction.
//   F, U, M     lanes of float, of uint32_t, of booleans
//   fma         rounded once, always;  mac: a*b + c, rounded once only where the hardware does
// Everything is in an anonymous namespace: see kernels.h.
#include <cstdint>

#include "core/rng.h"

namespace pulseline::cpu {
namespace {

constexpr int kLanes = 4;
constexpr int kUnroll = 1;  // of the loops over the vectors of a block
constexpr bool kFusedRead = false;

typedef float f4 __attribute__((vector_size(16)));
typedef uint32_t u4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));

struct F {
  f4 v;
  F() = default;
  PL_HD F(f4 x) : v(x) {}
  PL_HD explicit F(float x) : v(f4{x, x, x, x}) {}
};
struct U {
  u4 v;
  U() = default;
  PL_HD U(u4 x) : v(x) {}
  PL_HD explicit U(uint32_t x) : v(u4{x, x, x, x}) {}
};
struct M {
  i4 v;  // 0 or -1
};

PL_HD F operator+(F a, F b) { return a.v + b.v; }
PL_HD F operator-(F a, F b) { return a.v - b.v; }
PL_HD F operator*(F a, F b) { return a.v * b.v; }
PL_HD F operator/(F a, F b) { return a.v / b.v; }
PL_HD M operator<(F a, F b) { return {i4(a.v < b.v)}; }
PL_HD U operator+(U a, U b) { return a.v + b.v; }
PL_HD U operator-(U a, U b) { return a.v - b.v; }
PL_HD U operator*(U a, U b) { return a.v * b.v; }
PL_HD U operator&(U a, U b) { return a.v & b.v; }
PL_HD U operator|(U a, U b) { return a.v | b.v; }
PL_HD U operator^(U a, U b) { return a.v ^ b.v; }
PL_HD U operator>>(U a, int s) { return a.v >> s; }
PL_HD U operator<<(U a, int s) { return a.v << s; }

PL_HD U xor3(U a, U b, U c) { return a ^ b ^ c; }
PL_HD U and_xor(U a, U b, U c) { return a & (b ^ c); }
// x >> S with `high` moved in from above.
template <int S>
PL_HD U shift_in(U x, uint32_t high) {
  return (x >> S) | U(high << (32 - S));
}

PL_HD U as_bits(F x) { return u4(x.v); }
PL_HD F as_float(U x) { return f4(x.v); }
PL_HD F to_float(U x) { return __builtin_convertvector(i4(x.v), f4); }
PL_HD U truncate(F x) { return u4(__builtin_convertvector(x.v, i4)); }
PL_HD F select(M m, F a, F b) { return f4((i4(a.v) & m.v) | (i4(b.v) & ~m.v)); }
PL_HD U select(M m, U a, U b) { return u4((i4(a.v) & m.v) | (i4(b.v) & ~m.v)); }
PL_HD F min(F a, F b) { return select(a < b, a, b); }
PL_HD F max(F a, F b) { return select(b < a, a, b); }
PL_HD F absolute(F x) { return f4(i4(x.v) & 0x7fffffff); }
PL_HD F square_root(F x) {
  for (int i = 0; i < kLanes; ++i) x.v[i] = __builtin_sqrtf(x.v[i]);
  return x;
}
// Out of line: the emulation is long, and inlining it everywhere takes a compiler a minute.
__attribute__((noinline)) F fma(F a, F b, F c) {
  for (int i = 0; i < kLanes; ++i) c.v[i] = pulseline::fma(a.v[i], b.v[i], c.v[i]);
  return c;
}
PL_HD F mac(F a, F b, F c) { return a * b + c; }
PL_HD F split_exponent(F x, F& e) {
  const i4 u = i4(x.v), s = (u - 0x3f3504f3) & i4(u4{0, 0, 0, 0} + 0xff800000u);
  e = __builtin_convertvector(s >> 23, f4);
  return f4(u - s);
}

// Out of line: an emulated fma in every copy of these costs minutes of compilation.
__attribute__((noinline, unused)) F exp2_poly(F t) { return pulseline::exp2_poly<F>(t); }
__attribute__((noinline, unused)) F log_poly(F x) { return pulseline::log_poly<F>(x); }
__attribute__((noinline, unused)) F power_poly(F x, F p) { return pulseline::power_poly<F>(x, p); }

PL_HD U lane_index() { return u4{0, 1, 2, 3}; }
PL_HD F load(const float* p) {
  F x;
  __builtin_memcpy(&x.v, p, 16);
  return x;
}
PL_HD U load(const uint32_t* p) {
  U x;
  __builtin_memcpy(&x.v, p, 16);
  return x;
}
PL_HD void store(float* p, F x) { __builtin_memcpy(p, &x.v, 16); }
PL_HD void store(uint32_t* p, U x) { __builtin_memcpy(p, &x.v, 16); }
// The first n lanes (n may exceed kLanes or be <= 0); the others read as zero, are not written.
PL_HD F load_partial(const float* p, int64_t n) {
  F x(0.0f);
  for (int i = 0; i < kLanes && i < n; ++i) x.v[i] = p[i];
  return x;
}
PL_HD U load_partial(const uint32_t* p, int64_t n) {
  U x(0u);
  for (int i = 0; i < kLanes && i < n; ++i) x.v[i] = p[i];
  return x;
}
PL_HD void store_partial(float* p, F x, int64_t n) {
  for (int i = 0; i < kLanes && i < n; ++i) p[i] = x.v[i];
}

// Lanes vector*kLanes.. of bit masks over 32 columns each.
PL_HD M load_mask(const uint32_t* bits, int vector) {
  const uint32_t b = bits[vector * kLanes / 32] >> (vector * kLanes % 32);
  return {i4{-int32_t(b & 1), -int32_t(b >> 1 & 1), -int32_t(b >> 2 & 1), -int32_t(b >> 3 & 1)}};
}
PL_HD uint32_t to_bits(M m) { return (m.v[0] & 1) | (m.v[1] & 2) | (m.v[2] & 4) | (m.v[3] & 8); }
PL_HD M is_negative(F x) { return {i4(x.v) >> 31}; }
PL_HD M nonzero(U x) { return {i4(x.v != 0)}; }
PL_HD bool any(M m) { return (m.v[0] | m.v[1] | m.v[2] | m.v[3]) != 0; }
PL_HD bool any(U x) { return (x.v[0] | x.v[1] | x.v[2] | x.v[3]) != 0; }
PL_HD uint32_t max_lane(U x) {  // lanes below 2^31
  uint32_t m = 0;
  for (int i = 0; i < kLanes; ++i) m = x.v[i] > m ? x.v[i] : m;
  return m;
}
PL_HD U max_signed(U a, U b) { return select(M{i4(a.v) > i4(b.v)}, a, b); }

// The sum of bit counts ends in shift-adds: GCC turns a multiply here back into scalar popcounts.
PL_HD U popcount16(U x) {
  x = x - ((x >> 1) & U(0x55555555u));
  x = (x & U(0x33333333u)) + ((x >> 2) & U(0x33333333u));
  x = (x + (x >> 4)) & U(0x0f0f0f0fu);
  return (x + (x >> 8)) & U(0x00ff00ffu);
}
PL_HD U popcount(U x) {
  x = popcount16(x);
  return (x + (x >> 16)) & U(0xffu);
}

// Bounds satisfy lo <= -0 and hi >= +0.
PL_HD F clip(F w, F hi, F lo) { return max(min(w, hi), lo); }

PL_HD F byte_sum(U h) {
  const U sum = (h & U(255u)) * U(32u) + (h >> 8 & U(255u)) * U(31u) +
                (h >> 16 & U(255u)) * U(29u) + (h >> 24) * U(27u);
  return to_float(sum - U(uint32_t(kByteMean)));
}

PL_HD F lookup(const float* table, U i) {  // i < 16; an unused lane may hold anything
  return f4{table[i.v[0] & 15u], table[i.v[1] & 15u], table[i.v[2] & 15u], table[i.v[3] & 15u]};
}

// r[k] lane l = w[l * stride + k]
PL_HD void load_transposed(const float* w, int64_t stride, F* r) {
  for (int k = 0; k < kLanes; ++k)
    r[k] = f4{w[k], w[stride + k], w[2 * stride + k], w[3 * stride + k]};
}

struct NoiseTables {  // cycle noise of `popcount_cubic` and sigma sqrt(n)
  F sigma;
  PL_HD explicit NoiseTables(float s) : sigma(s) {}
  PL_HD F cubic_low(U counts) const { return popcount_cubic(to_float(counts & U(0xffffu))); }
  PL_HD F cubic_high(U counts) const { return popcount_cubic(to_float(counts >> 16)); }
  PL_HD F root(U n) const { return square_root(to_float(n)) * sigma; }
};

}  // namespace
}  // namespace pulseline::cpu
