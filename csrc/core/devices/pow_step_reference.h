#pragma once
// PowStepReference: PowStep on v = w + ref; a second device holds the reference ref.
//   ref = reference_mean + reference_std xi, plus the symmetry point if subtract_symmetry_point,
//   limited to [v_min, v_max] so that w = 0 can be reached.
// The step depends on distances to the bounds alone, so that ref is folded into them at
// construction: w_max = v_max - ref, w_min = v_min - ref; a pulse is one of PowStep.
// The symmetry point v = v_min + x R solves s_up (1 - x)^p_up = s_down x^p_down: 24 bisections of
//   ln s_up + p_up ln(1 - x) - ln s_down - p_down ln x,  which falls with x.
// Source: see PowStep.
#include "core/devices/pow_step.h"

namespace pulseline {

struct PowStepReference : PowBase {
  static constexpr const char* kName = "PowStepReference";
  static constexpr const char* kFields = PULSELINE_PULSED_FIELDS
      ",pow_gamma,pow_gamma_dtod,pow_up_down,pow_up_down_dtod,reference_mean,reference_std,"
      "subtract_symmetry_point";
  struct Params {
    PulsedParams pulsed;
    PowParams pow;
    float reference_mean, reference_std, subtract_symmetry_point;
  } p;

  template <class U>
  PL_HD Stored<U> construct(const ParameterDraws<U>& draws) const {
    Stored<U> c = construct_pulsed(p.pulsed, draws);
    using F = decltype(as_float(c.bound));
    c.slope = construct_powers(p.pow, draws);
    const F hi = pair_first(c.bound), lo = pair_second(c.bound);
    F ref = F(p.reference_mean) + F(p.reference_std) * draws.normal(kReference);
    if (p.subtract_symmetry_point != 0.0f) ref = ref + (lo + (hi - lo) * symmetry_point(c));
    ref = max(min(ref, hi), lo);
    c.bound = stored_bounds(hi - ref, lo - ref);
    return c;
  }
  // As a part of the range.
  template <class U>
  static PL_HD auto symmetry_point(const Stored<U>& c) {
    using F = decltype(as_float(c.bound));
    const F up = log_poly(positive_floor(pair_first(c.step)));
    const F down = log_poly(positive_floor(negate(pair_second(c.step))));
    F x(0.5f);
    float width = 0.25f;
    for (int i = 0; i < 24; ++i, width *= 0.5f) {
      const F rising = up + pair_first(c.slope) * log_poly(F(1.0f) - x);
      const F falling = down + pair_second(c.slope) * log_poly(x);
      x = select(falling < rising, x + F(width), x - F(width));
    }
    return x;
  }
};

}  // namespace pulseline
