#pragma once
// What all pulsed devices share: the parameters of a device population and what one crosspoint
// keeps of them.
//   hi = w_max (1 + w_max_dtod xi), lo = w_min (1 + w_min_dtod xi)
//   swapped if lo > hi; then |hi|, -|lo|
//   gain = 1 + dw_min_dtod xi  (or exp(dw_min_dtod xi)),  r = up_down_dtod xi
//   s_up = |gain + min(up_down, 0) + r| dw_min
//   s_down = |gain - max(up_down, 0) - r| dw_min
// A corrupt device (probability corrupt_devices_prob) is stuck at one uniform value within
// +-corrupt_devices_range: both steps are 0 and one of its bounds is that value.
// Units: normalised conductance. Every value is rounded to the nearest bf16 (by at most 2^-9 of
// itself, .2 %) and the rounded value IS the device: kernels, reference and closed forms use it.
//
// A device model is a struct with these members, each of which list.h asks for:
//   kName, kFields
//     Name and fields of the Python dataclass, in its order; Params holds them as floats.
//   kAffine
//     step(w) = step + slope w in each direction, with slope_up and slope_down. Joined pulses then
//     follow a closed form; else they take a second-order step.
//   kSlopes
//     The model stores a slope pair, whatever it means (slopes, powers, tilts). Without it kernels
//     leave that pair unread: an affine model's step is constant, and `prepare` of another one may
//     put into slope_up and slope_down what it likes.
//   kLongStep
//     A step costs far more than counting pulses (power, exponential, table): it is skipped where
//     no lane has a pulse, and two vectors are in flight. No bit depends on it.
//   kAdditive
//     additive_noise() can be true. Where it is, a pulse adds sigma noise_scale(..) xi; where it is
//     not, sigma step(..) xi.
//   kOwnNoise
//     noise_scale reads extra_up and extra_down; without it, at most up and down. StepNoise and
//     ProportionalNoise below give both traits and both functions.
//   construct(draws)
//     What a crosspoint stores. construct_pulsed does what all models have in common.
//   prepare(c)
//     Once per call and crosspoint, before its pulses: what `step` needs and nobody stores.
//     extra_up and extra_down are the model's own cells.
//   step(c, w, up)
//     The signed step at w without noise. The caller clips the weight to [lo, hi].
#include "core/parameters.h"

namespace pulseline {

// Parameters of the population, in the order of the Python dataclass; flags are 0 or 1.
#define PULSELINE_PULSED_FIELDS                                                            \
  "dw_min,dw_min_dtod,dw_min_std,dw_min_dtod_log_normal,up_down,up_down_dtod,w_max,w_min," \
  "w_max_dtod,w_min_dtod,corrupt_devices_prob,corrupt_devices_range"
struct PulsedParams {
  float dw_min, dw_min_dtod, dw_min_std, dw_min_dtod_log_normal, up_down, up_down_dtod;
  float w_max, w_min, w_max_dtod, w_min_dtod, corrupt_devices_prob, corrupt_devices_range;
};

// One crosspoint. Steps are signed: down and its slope lower the weight.
template <class F>
struct Crosspoint {
  F up, down;              // step at w = 0
  F slope_up, slope_down;  // affine devices: step(w) = step + slope w
  F hi, lo;                // bounds, lo <= -0 and hi >= +0
  F extra_up, extra_down;  // the model's own, set by its `prepare`
};

// The three words that are stored per crosspoint: pairs of bf16 (up, down) (slopes) (hi, lo).
// U is uint32_t or a SIMD vector of it.
template <class U>
struct Stored {
  U step, slope, bound;
};

template <class F>
PL_HD F positive_floor(F x) {  // keeps a slope finite
  return max(x, F(0x1p-40f));
}
// The pairs of two steps, slopes or bounds. A bound of 0 is +0 above and -0 below.
template <class F>
PL_HD auto stored_pair(F first, F second) {
  return pack_pair(bf16_nearest(first), bf16_nearest(second));
}
template <class F>
PL_HD auto stored_bounds(F hi, F lo) {
  return stored_pair(absolute(hi), negate(absolute(lo)));
}
// (gain + min(asymmetry, 0) + bias, gain - max(asymmetry, 0) - bias) scale, both as magnitudes: how
// a spread and an asymmetry make an up and a down value.
template <class F>
struct UpDown {
  F up, down;
};
template <class F>
PL_HD UpDown<F> up_down(F gain, F bias, float asymmetry, float scale) {
  return {absolute((gain + F(min(asymmetry, 0.0f))) + bias) * F(scale),
          absolute((gain - F(max(asymmetry, 0.0f))) - bias) * F(scale)};
}

// Fills `step` and `bound`; the model adds its slopes.
template <class U>
PL_HD Stored<U> construct_pulsed(const PulsedParams& p, const ParameterDraws<U>& draws) {
  using F = decltype(as_float(draws.place));
  const F one(1.0f);
  const F a = F(p.w_max) * (one + F(p.w_max_dtod) * draws.normal(kUpperBound));
  const F b = F(p.w_min) * (one + F(p.w_min_dtod) * draws.normal(kLowerBound));
  const F xi = F(p.dw_min_dtod) * draws.normal(kGain);
  const F bias = F(p.up_down_dtod) * draws.normal(kAsymmetry);
  const F gain = p.dw_min_dtod_log_normal != 0.0f ? exp2_poly(xi * F(kLog2e)) : one + xi;
  const UpDown<F> step = up_down(gain, bias, p.up_down, p.dw_min);
  return {stored_pair(step.up, negate(step.down)), U(0u), stored_bounds(max(a, b), min(a, b))};
}

// A device that is stuck at `value`: no steps, and one of its bounds is that value.
template <class F>
PL_HD auto construct_stuck(F value) {
  using U = decltype(as_bits(value));
  const F zero(0.0f);
  return Stored<U>{U(0x8000u), U(0u), stored_bounds(max(value, zero), min(value, zero))};
}

// Crosspoints of a population: their model's construction, then which are corrupt.
template <class Device, class U>
PL_HD Stored<U> construct_crosspoint(const Device& device, const ParameterDraws<U>& draws) {
  using F = decltype(as_float(draws.place));
  const PulsedParams& p = device.p.pulsed;
  const Stored<U> sound = device.construct(draws);
  if (!(p.corrupt_devices_prob > 0.0f)) return sound;
  const auto corrupt = draws.uniform(kCorrupt) < F(p.corrupt_devices_prob);
  const F place = F(2.0f) * draws.uniform(kStuckAt) - F(1.0f);
  const Stored<U> stuck = construct_stuck(F(p.corrupt_devices_range) * place);
  return {select(corrupt, stuck.step, sound.step), select(corrupt, stuck.slope, sound.slope),
          select(corrupt, stuck.bound, sound.bound)};
}

// Directions known in advance: `select` needs no mask.
struct Always {};
struct Never {};
template <class F>
PL_HD F select(Always, F a, F) {
  return a;
}
template <class F>
PL_HD F select(Never, F, F b) {
  return b;
}

// `up`: lanes that move up, a mask or Always or Never.
template <class F, class Up>
PL_HD F affine_step(const Crosspoint<F>& c, F w, Up up) {
  return fma(select(up, c.slope_up, c.slope_down), w, select(up, c.up, c.down));
}

// Additive noise in units of the step at weight 0.
struct StepNoise {
  static constexpr bool kAdditive = true;   // noise may be additive, see additive_noise
  static constexpr bool kOwnNoise = false;  // whether noise_scale takes extra_up, extra_down
  template <class F, class Up>
  PL_HD F noise_scale(const Crosspoint<F>& c, F, F, Up up) const {
    return select(up, c.up, c.down);
  }
};

// Models whose noise is always in proportion to the step f.
struct ProportionalNoise {
  static constexpr bool kAdditive = false;
  static constexpr bool kOwnNoise = false;
  PL_HD bool additive_noise() const { return false; }
  template <class F, class Up>
  PL_HD F noise_scale(const Crosspoint<F>&, F, F f, Up) const {
    return f;
  }
};

}  // namespace pulseline
