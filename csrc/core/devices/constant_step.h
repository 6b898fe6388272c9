#pragma once
// ConstantStep: every pulse moves the weight by the same step until it meets a bound.
//   up: w += s_up (1 + sigma xi)      down: w -= s_down (1 + sigma xi)
// Source: Gokmen & Vlasov 2016. n noise-free pulses: w_n = clip(w_0 + n s).
#include "core/devices/pulsed.h"

namespace pulseline {

struct ConstantStep : ProportionalNoise {
  static constexpr const char* kName = "ConstantStep";
  static constexpr const char* kFields = PULSELINE_PULSED_FIELDS;
  static constexpr bool kAffine = true;
  static constexpr bool kLongStep = false;
  static constexpr bool kSlopes = false;
  struct Params {
    PulsedParams pulsed;
  } p;

  template <class U>
  PL_HD Stored<U> construct(const ParameterDraws<U>& draws) const {
    return construct_pulsed(p.pulsed, draws);
  }
  template <class F>
  PL_HD void prepare(Crosspoint<F>&) const {}
  template <class F, class Up>
  PL_HD F step(const Crosspoint<F>& c, F, Up up) const {
    return select(up, c.up, c.down);
  }
};

}  // namespace pulseline
