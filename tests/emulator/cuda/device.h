#pragma once
// The emulator's version of csrc/cuda/device.h: same names, same meaning.
#include <cuda_runtime.h>

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
using SharedAddress = uintptr_t;
inline SharedAddress shared_address(const void* p) { return reinterpret_cast<uintptr_t>(p); }
inline void copy16_async(SharedAddress to, const void* global) {
  emulator::copy_async(reinterpret_cast<void*>(to), global, 16);
}
inline void copy8_async(SharedAddress to, const void* global) {
  emulator::copy_async(reinterpret_cast<void*>(to), global, 8);
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

}  // namespace pulseline::cuda
