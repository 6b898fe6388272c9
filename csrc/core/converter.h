#pragma once
// Digital-to-analog and analog-to-digital conversion of one value: uniform grid, symmetric,
// clipped.
#include "core/math.h"

namespace pulseline {

struct Converter {
  float step, inv_step;  // step <= 0: no quantisation
  float bound;           // largest magnitude; <= 0: none
};

// resolution: fraction of the full range 2 bound; <= 0 off, > 1 a number of levels.
PL_HD Converter make_converter(float resolution, float bound) {
  if (!(resolution > 0.0f)) return {0.0f, 0.0f, bound};
  const float r = resolution > 1.0f ? 1.0f / resolution : resolution;
  const float step = r * (2.0f * bound);
  return {step, 1.0f / step, bound};
}

template <class F>
PL_HD F convert(const Converter& c, F v) {
  if (c.step > 0.0f) v = round_even(v * F(c.inv_step)) * F(c.step);
  if (c.bound > 0.0f) v = min(max(v, F(-c.bound)), F(c.bound));
  return v;
}

// The same with stochastic rounding, u uniform in [0, 1): values on the grid stay.
template <class F>
PL_HD F convert_stochastic(const Converter& c, F v, F u) {
  if (c.step > 0.0f) {
    const F t = v * F(c.inv_step), nearest = round_even(t);
    const F low = select(t < nearest, nearest - F(1.0f), nearest);
    v = select(u < t - low, low + F(1.0f), low) * F(c.step);
  }
  if (c.bound > 0.0f) v = min(max(v, F(-c.bound)), F(c.bound));
  return v;
}

// What an ADC says of a sum. Not finite, it is no voltage: the sum passes, and is seen.
template <class F>
PL_HD F pass_finite(F sum, F converted) {
  return select(absolute(sum) < F(kInfinite), converted, sum);
}

}  // namespace pulseline
