#pragma once
// SoftBoundsReference: soft bounds on v = w + ref; a second device holds the reference ref.
//   up:   v += s_up   (1 - v / v_max + sigma xi)      down: v -= s_down (1 - v / v_min + sigma xi)
// mult_noise = 1: (1 - v / v_max)(1 + sigma xi). v_max = w_max_ij / |1 + slope_up_dtod xi|, v_min
// likewise: a steeper slope ends earlier. ref = reference_mean + reference_std xi, plus the
// symmetry point (s_up - s_down) / (s_up / v_max - s_down / v_min) if subtract_symmetry_point,
// limited to [v_min, v_max] so that w = 0 can be reached.
// ref is folded into the bounds at construction: hi = v_max - ref, lo = v_min - ref, and
//   up = slope_up (w - hi), slope_up = -s_up / v_max;   down = slope_down (w - lo) likewise.
// A pulse costs what it costs in SoftBounds. The step pair keeps s_up and s_down, which additive
// noise scales with.
// Source: Gong, Rasch et al., IEDM 2022. n noise-free up pulses:
// w_n = hi - (hi - w_0)(1 - s_up / v_max)^n, hi = v_max - ref.
#include "core/devices/pulsed.h"

namespace pulseline {

struct SoftBoundsReference {
  static constexpr const char* kName = "SoftBoundsReference";
  static constexpr const char* kFields = PULSELINE_PULSED_FIELDS
      ",mult_noise,slope_up_dtod,slope_down_dtod,reference_mean,reference_std,"
      "subtract_symmetry_point";
  static constexpr bool kAffine = true;
  static constexpr bool kLongStep = false;
  static constexpr bool kSlopes = true;
  static constexpr bool kAdditive = true;
  static constexpr bool kOwnNoise = true;
  struct Params {
    PulsedParams pulsed;
    float mult_noise, slope_up_dtod, slope_down_dtod, reference_mean, reference_std;
    float subtract_symmetry_point;
  } p;

  template <class U>
  PL_HD Stored<U> construct(const ParameterDraws<U>& draws) const {
    Stored<U> c = construct_pulsed(p.pulsed, draws);
    using F = decltype(as_float(c.bound));
    const F up = pair_first(c.step), down = pair_second(c.step);
    const F hi = bound_of(pair_first(c.bound), F(p.slope_up_dtod) * draws.normal(kModelUp));
    const F lo = negate(
        bound_of(negate(pair_second(c.bound)), F(p.slope_down_dtod) * draws.normal(kModelDown)));
    const F slope_up = negate(up) / hi, slope_down = negate(down) / lo;
    F ref = F(p.reference_mean) + F(p.reference_std) * draws.normal(kReference);
    if (p.subtract_symmetry_point != 0.0f)
      ref = ref - (up + down) / min(slope_up + slope_down, F(-0x1p-100f));
    ref = max(min(ref, hi), lo);
    c.slope = stored_pair(slope_up, slope_down);
    c.bound = stored_bounds(hi - ref, lo - ref);
    return c;
  }
  // The bound's magnitude at a slope 1 + `spread` times as steep, at most 16 times as far.
  template <class F>
  static PL_HD F bound_of(F magnitude, F spread) {
    return positive_floor(magnitude) / max(absolute(F(1.0f) + spread), F(0.0625f));
  }
  PL_HD bool additive_noise() const { return p.mult_noise == 0.0f; }
  template <class F, class Up>
  PL_HD F noise_scale(const Crosspoint<F>& c, F, F, Up up) const {
    return select(up, c.extra_up, c.extra_down);
  }
  template <class F>
  PL_HD void prepare(Crosspoint<F>& c) const {
    c.extra_up = c.up;
    c.extra_down = c.down;
    c.up = F(0.0f) - c.slope_up * c.hi;
    c.down = F(0.0f) - c.slope_down * c.lo;
  }
  template <class F, class Up>
  PL_HD F step(const Crosspoint<F>& c, F w, Up up) const {
    return affine_step(c, w, up);
  }
};

}  // namespace pulseline
