#pragma once
// Pulse trains of the stochastic update (Gokmen & Vlasov 2016) and their management.
// A column j fires in a slot with probability p_x = min(B |x_j|, 1), a row i with
// p_d = min(A |d_i|, 1); a coincidence moves the crosspoint by one step, so that
// E[dW_ij] = -lr x_j d_i when nothing clips. Marginally the count is Binomial(BL, p_x p_d);
// trains are shared along rows and columns, which correlates neighbours.
#include <cstdint>

#include "core/rng.h"

namespace pulseline {

constexpr int kSlotsPerWord = 31;  // a longer train is cut into words, taken one by one
constexpr int kCompareSlots = 10;  // up to here slots are compared one by one, above bit-sliced

struct TrainConfig {
  float lr, granularity;  // granularity: mean nominal step at w = 0, weight units
  int32_t desired_bl;
  int32_t fixed_bl, update_management, update_bl_management;  // flags
};

struct Train {  // of one sample
  int32_t bl;   // slots; 0: the sample fires nothing
  float scale_x, scale_d;
  float pulses;  // k = lr x_max d_max / granularity: expected pulses where both are largest
};

// An overflow is the largest number: times 0 it is 0.
PL_HD float finite(float x) { return min(x, 0x1.fffffep+127f); }

// x_max, d_max: largest magnitude of the sample's x and d. lr > 0.
PL_HD Train manage_train(const TrainConfig& c, float x_max, float d_max) {
  if (!(x_max > 0.0f) || !(d_max > 0.0f) || !(c.lr > 0.0f)) return {0, 0.0f, 0.0f, 0.0f};
  const float k = min(((c.lr * x_max) * d_max) / c.granularity, 1e30f);  // finite if it overflows
  const float desired = float(c.desired_bl);
  float bl = desired, base;
  if (c.update_bl_management) {
    const float up = float(int32_t(min(k, desired)));
    bl = min(max(up < k ? up + 1.0f : up, 1.0f), desired);
    base = square_root(c.lr / (c.granularity * bl));
  } else if (!c.fixed_bl && c.granularity * desired < c.lr) {
    const float ratio = c.lr / c.granularity, down = float(int32_t(ratio));
    bl = max(down < ratio ? down + 1.0f : down, 1.0f);
    base = 1.0f;
  } else {
    base = square_root(c.lr / (c.granularity * bl));
  }
  if (!c.update_management) return {int32_t(bl), base, base, k};
  const float d = k > desired ? d_max * (desired / k) : d_max;
  // Roots first: the quotient of extreme magnitudes would overflow.
  const float x = square_root(x_max), r = square_root(d);
  return {int32_t(bl), finite(base * (r / x)), finite(base * (x / r)), k};
}

// The mean of n, without trains: mean_rate |x| |d|, where each magnitude counts at most up to where
// its line fires in every slot. Where nothing saturates this is lr |x d| / granularity.
struct MeanPulses {
  float rate, most_x, most_d;
};
PL_HD MeanPulses mean_pulses(const TrainConfig& c, const Train& t) {
  if (t.bl == 0) return {0.0f, 0.0f, 0.0f};
  const float ratio = c.lr / c.granularity;
  const bool stretched =
      !c.update_bl_management && !c.fixed_bl && c.granularity * float(c.desired_bl) < c.lr;
  return {stretched ? float(t.bl) : ratio, 1.0f / t.scale_x, 1.0f / t.scale_d};
}

PL_HD int words_of(int bl) { return (bl + kSlotsPerWord - 1) / kSlotsPerWord; }
PL_HD int slots_of(int bl, int word) {
  const int left = bl - word * kSlotsPerWord;
  return left < kSlotsPerWord ? left : kSlotsPerWord;
}

// 16-bit probability of a line, stochastically rounded so that no input is dropped on average.
template <class F>
PL_HD auto probability16(F scale, F value, F uniform) {
  const F p = min(scale * absolute(value), F(1.0f));
  return truncate(min(p * F(65536.0f) + uniform, F(65536.0f)));
}

// Draw numbers of a line's hash: 0..15 slots, 16 the rounding of the probability.
constexpr uint32_t kRoundingDraw = 16;

// `bl` slots (at most 31), each fires if its 16-bit uniform is below p16; 65536 fires all.
// line = index * kColumnStride. U is uint32_t or a SIMD vector of it.
template <class U>
PL_HD U train_word(U p16, U line, Keys key, int bl) {
  U word(0u);
  if (bl <= kCompareSlots) {
    for (int s = 0; s < bl; s += 2) {
      const U h = hash(line + U(uint32_t(s / 2) * kRowStride), key.k0, key.k1);
      word = word | (((h & U(0xffffu)) - p16) >> 31) << s;
      if (s + 1 < bl) word = word | (((h >> 16) - p16) >> 31) << (s + 1);
    }
    return word;
  }
  // Bit-sliced comparison from the lowest bit of p16 up: 16 words decide 31 slots at once.
  for (int b = 0; b < 16; ++b) {
    const U h = hash(line + U(uint32_t(b) * kRowStride), key.k0, key.k1);
    const U m = U(0u) - ((p16 >> b) & U(1u));
    word = (word & h) | (m & (word | h));  // majority
  }
  return (word | (U(0u) - (p16 >> 16))) & U((1u << bl) - 1u);
}
// The same of a line's value of x or d, whose scale is of the sample.
template <class F, class U>
PL_HD U line_word(F value, U line, float scale, Keys key, int bl) {
  const F u = uniform24(hash(line + U(kRoundingDraw * kRowStride), key.k0, key.k1));
  const U p16 = probability16(F(scale), value, u);
  return any(p16) ? train_word(p16, line, key, bl) : U(0u);  // none is common and cheap
}

// One word of a sample's trains.
struct alignas(16) TrainWord {
  Keys columns, rows, cycle;  // of what lines draw, of cycle noise
  int32_t source, slots;      // sample; slots = 0: silent
  float scale_x, scale_d;
  uint32_t word;  // of the sample's trains
};
// k: running number of sample `source`.
PL_HD TrainWord draw_train_word(const Stream& stream, uint64_t k, int64_t source, const Train& t,
                                int word) {
  const Stream trains = {stream.seed, stream.tile ^ stream.trains};
  const Philox4 r = draw4(trains, kPulses, k, 0, uint32_t(word));
  return {{r.v[0], r.v[1]},
          {r.v[2], r.v[3]},
          draw_keys(stream, kCycleNoise, k, uint32_t(word)),
          int32_t(source),
          word < words_of(t.bl) ? slots_of(t.bl, word) : 0,
          t.scale_x,
          t.scale_d,
          uint32_t(word)};
}
// Of strict: every slot's cycle noise.
PL_HD Keys slot_key(const Stream& stream, uint64_t k, int word, int slot) {
  return draw_keys(stream, kSlotNoise, k, uint32_t(word) << 5 | uint32_t(slot));
}

}  // namespace pulseline
