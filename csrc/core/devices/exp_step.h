#pragma once
// ExpStep: the step falls off exponentially near the bounds (ReRAM fits).
//   z = 2 a w / (w_max_ij - w_min_ij) + b
//   up:   w += max(1 - A_up   e^( g_up   z), 0) s_up   (1 + sigma xi)
//   down: w -= max(1 - A_down e^(-g_down z), 0) s_down (1 + sigma xi)
// Complex noise: if dw_min_std_add or dw_min_std_slope is set, the noise of a pulse is
// sigma (|step| + dw_min_std_add + dw_min_std_slope |w|) xi, added to the step.
// Source: the exponential fit of Gokmen, Onen & Haensch 2017 and Gong et al. 2018.
// Computed as 2^t with t = w (2 a g log2 e / (hi - lo)) + b g log2 e, g = g_up or -g_down; the
// dataclass keeps |t| < 100, so the exponential needs no clamp.
#include "core/devices/pulsed.h"

namespace pulseline {

struct ExpStep {
  static constexpr bool kAdditive = true;
  static constexpr bool kOwnNoise = true;
  static constexpr const char* kName = "ExpStep";
  static constexpr const char* kFields = PULSELINE_PULSED_FIELDS
      ",a_up,a_down,gamma_up,gamma_down,a,b,dw_min_std_add,dw_min_std_slope";
  static constexpr bool kAffine = false;
  static constexpr bool kLongStep = true;
  static constexpr bool kSlopes = false;
  struct Params {
    PulsedParams pulsed;
    float a_up, a_down, gamma_up, gamma_down, a, b, dw_min_std_add, dw_min_std_slope;
  } p;

  template <class U>
  PL_HD Stored<U> construct(const ParameterDraws<U>& draws) const {
    return construct_pulsed(p.pulsed, draws);
  }
  PL_HD bool additive_noise() const {
    return p.dw_min_std_add != 0.0f || p.dw_min_std_slope != 0.0f;
  }
  template <class F, class Up>
  PL_HD F noise_scale(const Crosspoint<F>& c, F w, F f, Up) const {
    return absolute(f) + fma(c.extra_down, absolute(w), c.extra_up);
  }
  // The slopes hold d t / d w for the whole batch; a stuck device has no noise either.
  template <class F>
  PL_HD void prepare(Crosspoint<F>& c) const {
    const F r = F(2.0f * p.a) / max(c.hi - c.lo, F(0x1p-40f));
    c.slope_up = r * F(p.gamma_up * kLog2e);
    c.slope_down = r * F(-(p.gamma_down * kLog2e));
    const auto moves = F(0.0f) < c.up - c.down;
    c.extra_up = select(moves, F(p.dw_min_std_add), F(0.0f));
    c.extra_down = select(moves, F(p.dw_min_std_slope), F(0.0f));
  }
  template <class F, class Up>
  PL_HD F step(const Crosspoint<F>& c, F w, Up up) const {
    const F offset =
        select(up, F(p.b * (p.gamma_up * kLog2e)), F(-(p.b * (p.gamma_down * kLog2e))));
    const F e = exp2_unclamped(fma(w, select(up, c.slope_up, c.slope_down), offset));
    const F y = fma(select(up, F(-p.a_up), F(-p.a_down)), e, F(1.0f));
    return max(y, F(0.0f)) * select(up, c.up, c.down);
  }
};

}  // namespace pulseline
