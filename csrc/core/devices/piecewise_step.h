#pragma once
// PiecewiseStep: the step follows a curve through measured nodes, and each device tilts it.
//   up:   w += s_up   P_up(w)   (1 + tilt_up   z) (1 + sigma xi)
//   down: w -= s_down P_down(w) (1 + tilt_down z) (1 + sigma xi)
// P is linear between 2 to 16 equidistant nodes from w_min_ij to w_max_ij, z runs from -1 to 1 over
// the same range, tilt = tilt_dtod xi limited to [-1, 1]: the spread of the curves' shapes.
// Nodes come as one number of intervals and 17 values, the last one repeated.
// Source: any measured response; without tilt the piecewise linear model of Rasch et al. 2024.
#include "core/devices/pulsed.h"

namespace pulseline {

struct PiecewiseStep : ProportionalNoise {
  static constexpr const char* kName = "PiecewiseStep";
  static constexpr const char* kFields =
      PULSELINE_PULSED_FIELDS ",tilt_up_dtod,tilt_down_dtod,piecewise_up[18],piecewise_down[18]";
  static constexpr bool kAffine = false;
  static constexpr bool kLongStep = true;
  static constexpr bool kSlopes = true;
  struct Curve {
    float intervals, nodes[17];
  };
  struct Params {
    PulsedParams pulsed;
    float tilt_up_dtod, tilt_down_dtod;
    Curve up, down;
  } p;

  template <class U>
  PL_HD Stored<U> construct(const ParameterDraws<U>& draws) const {
    Stored<U> c = construct_pulsed(p.pulsed, draws);
    c.slope = stored_pair(tilt(p.tilt_up_dtod, draws.normal(kModelUp)),
                          tilt(p.tilt_down_dtod, draws.normal(kModelDown)));
    return c;
  }
  template <class F>
  static PL_HD F tilt(float spread, F xi) {
    return max(min(F(spread) * xi, F(1.0f)), F(-1.0f));
  }
  template <class F>
  PL_HD void prepare(Crosspoint<F>& c) const {
    const F range = max(c.hi - c.lo, F(0x1p-40f));
    c.extra_up = F(p.up.intervals) / range;
    c.extra_down = F(p.down.intervals) / range;
  }
  template <class F, class Up>
  PL_HD F step(const Crosspoint<F>& c, F w, Up up) const {
    const F t = (w - c.lo) * select(up, c.extra_up, c.extra_down);
    const auto i = truncate(t);
    const F left = select(up, lookup(p.up.nodes, i), lookup(p.down.nodes, i));
    const F right = select(up, lookup(p.up.nodes + 1, i), lookup(p.down.nodes + 1, i));
    const F y = fma(t - to_float(i), right - left, left);
    const F z = fma(t, select(up, F(2.0f / p.up.intervals), F(2.0f / p.down.intervals)), F(-1.0f));
    const F tilted = fma(y * select(up, c.slope_up, c.slope_down), z, y);
    return max(tilted, F(0.0f)) * select(up, c.up, c.down);
  }
};

}  // namespace pulseline
