#pragma once
// PowStep: the step is a power of the distance to the bound, R = w_max_ij - w_min_ij.
//   up:   w += s_up   ((w_max_ij - w) / R)^p_up   (1 + sigma xi)
//   down: w -= s_down ((w - w_min_ij) / R)^p_down (1 + sigma xi)
//   gain = 1 + pow_gamma_dtod xi,  r = pow_up_down_dtod xi
//   p_up   = |gain + min(pow_up_down, 0) + r| pow_gamma
//   p_down = |gain - max(pow_up_down, 0) - r| pow_gamma
// Source: Fusi & Abbott 2007, Frascaroli et al. 2018. p = 1, n noise-free up pulses:
// w_n = w_max - (w_max - w_0)(1 - s_up / R)^n.
// At x = 0 the power is at least 2^-120 instead of 0, which the clip at that very bound makes good.
// The slope pair stores the powers.
#include "core/devices/pulsed.h"

namespace pulseline {

struct PowParams {
  float pow_gamma, pow_gamma_dtod, pow_up_down, pow_up_down_dtod;
};

// The pair (p_up, p_down).
PL_HD uint32_t construct_powers(const PowParams& p, const Philox4& r) {
  const float gain = 1.0f + p.pow_gamma_dtod * probit(r.v[0]);
  const float bias = p.pow_up_down_dtod * probit(r.v[1]);
  const float up = absolute((gain + min(p.pow_up_down, 0.0f)) + bias) * p.pow_gamma;
  const float down = absolute((gain - max(p.pow_up_down, 0.0f)) - bias) * p.pow_gamma;
  return pack_pair(bf16_nearest(up), bf16_nearest(down));
}

struct PowBase : ProportionalNoise {
  static constexpr bool kAffine = false;
  static constexpr bool kLongStep = true;
  static constexpr bool kSlopes = true;

  template <class F>
  PL_HD void prepare(Crosspoint<F>& c) const {
    c.extra_up = F(1.0f) / max(c.hi - c.lo, F(0x1p-40f));
  }
  template <class F, class Up>
  PL_HD F step(const Crosspoint<F>& c, F w, Up up) const {
    const F x = select(up, c.hi - w, w - c.lo) * c.extra_up;
    return power_poly(x, select(up, c.slope_up, c.slope_down)) * select(up, c.up, c.down);
  }
};

struct PowStep : PowBase {
  static constexpr const char* kName = "PowStep";
  static constexpr const char* kFields =
      PULSELINE_PULSED_FIELDS ",pow_gamma,pow_gamma_dtod,pow_up_down,pow_up_down_dtod";
  struct Params {
    PulsedParams pulsed;
    PowParams pow;
  } p;

  PL_HD Stored construct(const Stream& s, uint32_t row, uint32_t column) const {
    Stored c = construct_pulsed(p.pulsed, draw4(s, kDeviceParameters, row, column, 0));
    c.slope = construct_powers(p.pow, draw4(s, kDeviceParameters, row, column, 1));
    return c;
  }
};

}  // namespace pulseline
