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
template <class U>
PL_HD U construct_powers(const PowParams& p, const ParameterDraws<U>& draws) {
  using F = decltype(as_float(draws.place));
  const F gain = F(1.0f) + F(p.pow_gamma_dtod) * draws.normal(kModelUp);
  const F bias = F(p.pow_up_down_dtod) * draws.normal(kModelDown);
  const UpDown<F> power = up_down(gain, bias, p.pow_up_down, p.pow_gamma);
  return stored_pair(power.up, power.down);
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

  template <class U>
  PL_HD Stored<U> construct(const ParameterDraws<U>& draws) const {
    Stored<U> c = construct_pulsed(p.pulsed, draws);
    c.slope = construct_powers(p.pow, draws);
    return c;
  }
};

}  // namespace pulseline
