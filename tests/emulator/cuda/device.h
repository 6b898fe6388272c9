#pragma once
// The emulator's version of csrc/cuda/device.h: same names, same meaning.
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#define PL_DEVICE inline __attribute__((always_inline))
#define PL_SHARED(type, name, count)        \
  static const char name##_declaration = 0; \
  type* const name = static_cast<type*>(emulator::shared(&name##_declaration, sizeof(type[count])))
#define PL_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(emulator::dynamic_shared())
#ifndef PL_NATIVE_BIT_MMA  // the tests compile both
#define PL_NATIVE_BIT_MMA 1
#endif

namespace pulseline::cuda {

inline uint32_t opaque(uint32_t x) { return x; }
inline uint32_t here(uint32_t x) { return x; }
using SharedAddress = uintptr_t;
inline SharedAddress shared_address(const void* p) { return reinterpret_cast<uintptr_t>(p); }
inline void copy16_async(SharedAddress to, const void* global) {
  emulator::copy_async(reinterpret_cast<void*>(to), global, 16);
}
inline void copy8_async(SharedAddress to, const void* global) {
  emulator::copy_async(reinterpret_cast<void*>(to), global, 8);
}
inline void copy16_filled(SharedAddress to, const void* global, int bytes) {
  emulator::copy_async(reinterpret_cast<void*>(to), global, 16, size_t(bytes));
}
inline void copy4_filled(SharedAddress to, const void* global, int bytes) {
  emulator::copy_async(reinterpret_cast<void*>(to), global, 4, size_t(bytes));
}
inline void copies_commit() { emulator::copies_commit(); }
template <int N>
void copies_wait() {
  emulator::copies_wait(N);
}

// Fragments as the PTX manual lays them out for m16n8k256 on single bits.
inline void bit_mma(uint32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulator::Words in = {{a[0], a[1], a[2], a[3], b0, b1, c[0], c[1], c[2], c[3]}};
  const auto multiply = [](uint32_t, const emulator::Words* w, emulator::Words* out) {
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        uint32_t sum = w[lane].v[6 + i];
        for (int word = 0; word < 8; ++word) {
          const uint32_t x = w[row % 8 * 4 + word % 4].v[word / 4 * 2 + row / 8];
          const uint32_t y = w[column * 4 + word % 4].v[4 + word / 4];
          sum += uint32_t(__builtin_popcount(x & y));
        }
        out[lane].v[i] = sum;
      }
  };
  const emulator::Words out = emulator::collective("bit_mma", 0xffffffffu, in, multiply);
  for (int i = 0; i < 4; ++i) c[i] = out.v[i];
}

// m16n8k8 with bf16 factors: row-major a, column-major b, two values in a word, low half first.
inline void bf16_mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b) {
  const emulator::Words in = {{a0, a1, b}};
  const auto multiply = [](uint32_t, const emulator::Words* w, emulator::Words* out) {
    const auto widen = [](uint32_t half) {
      const uint32_t bits = half << 16;
      float x;
      std::memcpy(&x, &bits, 4);
      return x;
    };
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        float sum = 0.0f;
        for (int k = 0; k < 8; ++k) {
          const uint32_t x = w[row % 8 * 4 + k / 2].v[row / 8] >> (k % 2 * 16) & 0xffffu;
          const uint32_t y = w[column * 4 + k / 2].v[2] >> (k % 2 * 16) & 0xffffu;
          sum += widen(x) * widen(y);
        }
        std::memcpy(&out[lane].v[i], &sum, 4);
      }
  };
  const emulator::Words out = emulator::collective("bf16_mma", 0xffffffffu, in, multiply);
  std::memcpy(c, out.v, 16);
}

// m16n8k8 with tf32 factors: row-major a, column-major b; low 13 bits are ignored. Sums are as bad
// as hardware is known to be (Fasi et al., PeerJ CS 2021): every term is cut off below the last bit
// of the largest, and so is the sum.
inline void tf32_mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                     const float (&c)[4]) {
  emulator::Words in = {{a[0], a[1], a[2], a[3], b0, b1}};
  std::memcpy(in.v + 6, c, 16);
  const auto multiply = [](uint32_t, const emulator::Words* w, emulator::Words* out) {
    const auto number = [](uint32_t bits) {
      float x;
      std::memcpy(&x, &bits, 4);
      return double(x);
    };
    // Towards zero to 24 bits where the first is that of `largest`; not finite: as it is.
    const auto cut = [](double x, double largest) {
      if (!std::isfinite(largest) || largest == 0.0) return x;
      const double quantum = std::ldexp(1.0, std::ilogb(largest) - 23);
      return std::trunc(x / quantum) * quantum;
    };
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        double terms[9], largest = 0.0, sum = 0.0;
        for (int k = 0; k < 8; ++k) {
          const uint32_t x = w[row % 8 * 4 + k % 4].v[k / 4 * 2 + row / 8];
          const uint32_t y = w[column * 4 + k % 4].v[4 + k / 4];
          terms[k] = number(x & 0xffffe000u) * number(y & 0xffffe000u);
        }
        terms[8] = number(w[lane].v[6 + i]);
        for (const double term : terms) largest = std::fmax(largest, std::fabs(term));
        for (const double term : terms) sum += cut(term, largest);
        const float result = float(cut(sum, std::fabs(sum)));
        std::memcpy(&out[lane].v[i], &result, 4);
      }
  };
  const emulator::Words out = emulator::collective("tf32_mma", 0xffffffffu, in, multiply);
  std::memcpy(d, out.v, 16);
}

// Halves.
inline float half_value(uint32_t bits) {
  _Float16 h;
  const uint16_t low = uint16_t(bits);
  std::memcpy(&h, &low, 2);
  return float(h);
}
inline uint32_t half_bits(float x) {
  const _Float16 h = _Float16(x);
  uint16_t bits;
  std::memcpy(&bits, &h, 2);
  return bits;
}
// Products and differences of halves are exact in double: one rounding to float would be a second.
inline uint32_t half_of(double x) {
  const _Float16 h = _Float16(x);
  uint16_t bits;
  std::memcpy(&bits, &h, 2);
  return bits;
}
inline uint32_t half_mul(uint32_t a, uint32_t b) {
  return half_of(double(half_value(a)) * half_value(b)) |
         half_of(double(half_value(a >> 16)) * half_value(b >> 16)) << 16;
}
inline uint32_t half_sub(uint32_t a, uint32_t b) {
  return half_of(double(half_value(a)) - half_value(b)) |
         half_of(double(half_value(a >> 16)) - half_value(b >> 16)) << 16;
}

// m16n8k16 with halves, two values in a word, low half first.
inline void f16_mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulator::Words in = {{a[0], a[1], a[2], a[3], b0, b1}};
  std::memcpy(&in.v[6], c, 16);
  const auto multiply = [](uint32_t, const emulator::Words* w, emulator::Words* out) {
    float x[16][16], y[8][16];
    for (int k = 0; k < 16; ++k) {
      const int word = k / 2, shift = k % 2 * 16;
      for (int r = 0; r < 16; ++r)
        x[r][k] = half_value(w[r % 8 * 4 + word % 4].v[word / 4 * 2 + r / 8] >> shift);
      for (int n = 0; n < 8; ++n)
        y[n][k] = half_value(w[n * 4 + word % 4].v[4 + word / 4] >> shift);
    }
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        float sum;
        std::memcpy(&sum, &w[lane].v[6 + i], 4);
        for (int k = 0; k < 16; ++k) sum += x[row][k] * y[column][k];
        std::memcpy(&out[lane].v[i], &sum, 4);
      }
  };
  const emulator::Words out = emulator::collective("f16_mma", 0xffffffffu, in, multiply);
  std::memcpy(c, out.v, 16);
}

}  // namespace pulseline::cuda
