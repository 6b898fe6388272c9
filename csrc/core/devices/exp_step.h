#pragma once
// ExpStep: the step falls off exponentially near the bounds (ReRAM fits).
//   z = 2 a w / (w_max_ij - w_min_ij) + b
//   up:   w += max(1 - A_up   e^( g_up   z), 0) s_up   (1 + sigma xi)
//   down: w -= max(1 - A_down e^(-g_down z), 0) s_down (1 + sigma xi)
// Source: the exponential fit of Gokmen, Onen & Haensch 2017 and Gong et al. 2018.
// Computed as t = z * (g log2 e), 2^t by exp2_poly.
#include "core/devices/pulsed.h"

namespace pulseline {

struct ExpStep {
  static constexpr const char* kName = "ExpStep";
  static constexpr const char* kFields =
      PULSELINE_PULSED_FIELDS ",a_up,a_down,gamma_up,gamma_down,a,b";
  static constexpr bool kSlopes = false;
  struct Params {
    PulsedParams pulsed;
    float a_up, a_down, gamma_up, gamma_down, a, b;
  } p;

  PL_HD Stored construct(const Stream& s, uint32_t row, uint32_t column) const {
    return construct_pulsed(p.pulsed, draw4(s, kDeviceParameters, row, column, 0));
  }
  PL_HD bool additive_noise() const { return false; }
  // slope_up holds 2 a / (w_max_ij - w_min_ij) for the whole batch.
  template <class F>
  PL_HD void prepare(Crosspoint<F>& c) const {
    c.slope_up = F(2.0f * p.a) / max(c.hi - c.lo, F(0x1p-40f));
  }
  template <class F>
  PL_HD F step(const Crosspoint<F>& c, F w, decltype(F() < F()) up) const {
    const float log2e = 0x1.715476p+0f;
    const F z = fma(w, c.slope_up, F(p.b));
    const F t = z * select(up, F(p.gamma_up * log2e), F(-(p.gamma_down * log2e)));
    const F y = F(1.0f) - select(up, F(p.a_up), F(p.a_down)) * exp2_poly(t);
    return max(y, F(0.0f)) * select(up, c.up, c.down);
  }
};

}  // namespace pulseline
