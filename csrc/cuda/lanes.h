#pragma once
// N values that a thread takes through the same steps: what core/read.h needs of a SIMD type, as
// the CPU's are. Options are then asked once for all of them, and none waits for another's result.
#include <cstdint>

#include "core/rng.h"

namespace pulseline {

template <class T, int N>
struct Lanes {
  T v[N];
  Lanes() = default;
  PL_HD explicit Lanes(T x) {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) v[i] = x;
  }
};
template <int N>
using Floats = Lanes<float, N>;
template <int N>
using Uints = Lanes<uint32_t, N>;
template <int N>
using Bools = Lanes<bool, N>;

// f(i) of every lane.
template <class T, int N, class F>
PL_HD Lanes<T, N> lanes_of(F f) {
  Lanes<T, N> r;
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) r.v[i] = f(i);
  return r;
}

template <class T, int N>
PL_HD Lanes<T, N> operator+(const Lanes<T, N>& a, const Lanes<T, N>& b) {
  return lanes_of<T, N>([&](int i) { return a.v[i] + b.v[i]; });
}
template <class T, int N>
PL_HD Lanes<T, N> operator-(const Lanes<T, N>& a, const Lanes<T, N>& b) {
  return lanes_of<T, N>([&](int i) { return a.v[i] - b.v[i]; });
}
template <class T, int N>
PL_HD Lanes<T, N> operator*(const Lanes<T, N>& a, const Lanes<T, N>& b) {
  return lanes_of<T, N>([&](int i) { return a.v[i] * b.v[i]; });
}
template <int N>
PL_HD Floats<N> operator/(const Floats<N>& a, const Floats<N>& b) {
  return lanes_of<float, N>([&](int i) { return a.v[i] / b.v[i]; });
}
template <int N>
PL_HD Uints<N> operator^(const Uints<N>& a, const Uints<N>& b) {
  return lanes_of<uint32_t, N>([&](int i) { return a.v[i] ^ b.v[i]; });
}
template <int N>
PL_HD Uints<N> operator>>(const Uints<N>& a, int s) {
  return lanes_of<uint32_t, N>([&](int i) { return a.v[i] >> s; });
}
template <int N>
PL_HD Bools<N> operator<(const Floats<N>& a, const Floats<N>& b) {
  return lanes_of<bool, N>([&](int i) { return a.v[i] < b.v[i]; });
}
template <int N>
PL_HD Uints<N> xor3(const Uints<N>& a, const Uints<N>& b, const Uints<N>& c) {
  return a ^ b ^ c;
}
template <int N>
PL_HD Floats<N> fma(const Floats<N>& a, const Floats<N>& b, const Floats<N>& c) {
  return lanes_of<float, N>([&](int i) { return fma(a.v[i], b.v[i], c.v[i]); });
}
template <int N>
PL_HD Floats<N> min(const Floats<N>& a, const Floats<N>& b) {
  return lanes_of<float, N>([&](int i) { return min(a.v[i], b.v[i]); });
}
template <int N>
PL_HD Floats<N> max(const Floats<N>& a, const Floats<N>& b) {
  return lanes_of<float, N>([&](int i) { return max(a.v[i], b.v[i]); });
}
template <int N>
PL_HD Floats<N> select(const Bools<N>& m, const Floats<N>& a, const Floats<N>& b) {
  return lanes_of<float, N>([&](int i) { return select(m.v[i], a.v[i], b.v[i]); });
}
template <int N>
PL_HD Floats<N> absolute(const Floats<N>& x) {
  return lanes_of<float, N>([&](int i) { return absolute(x.v[i]); });
}
template <int N>
PL_HD Floats<N> square_root(const Floats<N>& x) {
  return lanes_of<float, N>([&](int i) { return square_root(x.v[i]); });
}
template <int N>
PL_HD Floats<N> to_float(const Uints<N>& x) {
  return lanes_of<float, N>([&](int i) { return to_float(x.v[i]); });
}
template <int N>
PL_HD Floats<N> byte_sum(const Uints<N>& h) {
  return lanes_of<float, N>([&](int i) { return byte_sum(h.v[i]); });
}

}  // namespace pulseline
