#pragma once
// SoftBounds: the step shrinks linearly to zero at the crosspoint's own bound.
//   up:   w += s_up   (1 - w / w_max_ij) (1 + sigma xi)
//   down: w -= s_down (1 - w / w_min_ij) (1 + sigma xi)
// additive noise (mult_noise = 0): sigma xi is added inside the first bracket instead.
// Source: Frascaroli et al. 2018; Gokmen & Haensch 2020. n noise-free up pulses:
// w_n = w_max - (w_max - w_0) (1 - s_up / w_max)^n. Symmetry point:
// (s_up - s_down) / (s_up / w_max - s_down / w_min).
#include "core/devices/pulsed.h"

namespace pulseline {

struct SoftBounds : StepNoise {
  static constexpr const char* kName = "SoftBounds";
  static constexpr const char* kFields = PULSELINE_PULSED_FIELDS ",mult_noise";
  static constexpr bool kAffine = true;
  static constexpr bool kLongStep = false;
  static constexpr bool kSlopes = true;
  struct Params {
    PulsedParams pulsed;
    float mult_noise;
  } p;

  template <class U>
  PL_HD Stored<U> construct(const ParameterDraws<U>& draws) const {
    Stored<U> c = construct_pulsed(p.pulsed, draws);
    const auto hi = positive_floor(pair_first(c.bound));
    const auto lo = positive_floor(negate(pair_second(c.bound)));
    c.slope = stored_pair(negate(pair_first(c.step)) / hi, pair_second(c.step) / lo);
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
