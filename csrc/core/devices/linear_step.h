#pragma once
// LinearStep: the step changes linearly with the weight.
//   up:   w += s_up   (1 - g_up   w / W+) (1 + sigma xi)
//   down: w -= s_down (1 - g_down w / W-) (1 + sigma xi)
// additive noise (mult_noise = 0): w += s_up (1 - g_up w / W+ + sigma xi), mirrored.
// W+- is the population's mean bound if mean_bound_reference, else the crosspoint's own bound;
// g_up = gamma_up (1 + gamma_up_dtod xi), likewise down.
// Source: the linear device of Gokmen & Vlasov 2016 and the linear fits of ECRAM and capacitor
// cells. n noise-free up pulses contract toward W+ / g_up by (1 - g_up s_up / W+) each.
#include "core/devices/pulsed.h"

namespace pulseline {

struct LinearStep : StepNoise {
  static constexpr const char* kName = "LinearStep";
  static constexpr const char* kFields = PULSELINE_PULSED_FIELDS
      ",gamma_up,gamma_down,gamma_up_dtod,gamma_down_dtod,mult_noise,mean_bound_reference";
  static constexpr bool kAffine = true;
  static constexpr bool kLongStep = false;
  static constexpr bool kSlopes = true;
  struct Params {
    PulsedParams pulsed;
    float gamma_up, gamma_down, gamma_up_dtod, gamma_down_dtod, mult_noise, mean_bound_reference;
  } p;

  template <class U>
  PL_HD Stored<U> construct(const ParameterDraws<U>& draws) const {
    Stored<U> c = construct_pulsed(p.pulsed, draws);
    using F = decltype(as_float(c.bound));
    const bool mean = p.mean_bound_reference != 0.0f;
    const F hi = positive_floor(mean ? F(p.pulsed.w_max) : pair_first(c.bound));
    const F lo = positive_floor(mean ? F(-p.pulsed.w_min) : negate(pair_second(c.bound)));
    const F one(1.0f);
    const F up = F(p.gamma_up) * (one + F(p.gamma_up_dtod) * draws.normal(kModelUp));
    const F down = F(p.gamma_down) * (one + F(p.gamma_down_dtod) * draws.normal(kModelDown));
    c.slope = stored_pair(negate(pair_first(c.step) * up) / hi, (pair_second(c.step) * down) / lo);
    return c;
  }
  PL_HD bool additive_noise() const { return p.mult_noise == 0.0f; }
  template <class F>
  PL_HD void prepare(Crosspoint<F>&) const {}
  template <class F, class Up>
  PL_HD F step(const Crosspoint<F>& c, F w, Up up) const {
    return affine_step(c, w, up);
  }
};

}  // namespace pulseline
