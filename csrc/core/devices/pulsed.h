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
// Units: normalised conductance. Every value is rounded to bf16 (bounds toward zero) and the
// rounded value IS the device: kernels, reference and closed forms all use it.
#include "core/rng.h"

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
struct Stored {
  uint32_t step, slope, bound;
};

PL_HD float positive_floor(float x) { return max(x, 0x1p-40f); }  // keeps a slope finite

// Fills `step` and `bound`; the model adds its slopes.
PL_HD Stored construct_pulsed(const PulsedParams& p, const Philox4& r) {
  float hi = p.w_max * (1.0f + p.w_max_dtod * probit(r.v[0]));
  float lo = p.w_min * (1.0f + p.w_min_dtod * probit(r.v[1]));
  if (lo > hi) {
    const float t = lo;
    lo = hi;
    hi = t;
  }
  const float xi = p.dw_min_dtod * probit(r.v[2]), bias = p.up_down_dtod * probit(r.v[3]);
  const float gain = p.dw_min_dtod_log_normal != 0.0f ? exp2_poly(xi * kLog2e) : 1.0f + xi;
  const float up = absolute((gain + min(p.up_down, 0.0f)) + bias) * p.dw_min;
  const float down = absolute((gain - max(p.up_down, 0.0f)) - bias) * p.dw_min;
  return {pack_pair(bf16_nearest(up), bf16_nearest(-down)), 0u,
          pack_pair(bf16_toward_zero(absolute(hi)), bf16_toward_zero(-absolute(lo)))};
}

// One crosspoint of a population: its model's construction, then whether it is corrupt.
template <class Device>
PL_HD Stored construct_crosspoint(const Device& device, const Stream& s, uint32_t row,
                                  uint32_t column) {
  const PulsedParams& p = device.p.pulsed;
  if (p.corrupt_devices_prob > 0.0f) {
    const Philox4 r = draw4(s, kDeviceParameters, row, column, 2);
    if (uniform24(r.v[0]) < p.corrupt_devices_prob) {
      const float value = p.corrupt_devices_range * (2.0f * uniform24(r.v[1]) - 1.0f);
      const uint32_t v = bf16_toward_zero(value), minus_zero = 0x8000u;
      return {minus_zero, 0u, value < 0.0f ? v : pack_pair(v, minus_zero)};
    }
  }
  return device.construct(s, row, column);
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
