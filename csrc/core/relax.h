#pragma once
// Several pulses on one crosspoint in one step, order forgotten (fidelities grouped and moments).
//   n_k     counts of the two directions k;  f_k  signed steps at the weight before the group,
//   l_k     their slopes df/dw:  A = sum n_k f_k,  B = sum n_k l_k
//   w <- clip(w + phi(B) (A + sqrt(v) xi)),            phi(B) = (e^B - 1) / B
//   v = sigma^2 (n_up f_up^2 + n_down f_down^2) + var(n_up) f_up^2 + var(n_down) f_down^2
// phi(B) A is the flow dw/dt = A + B (w(t) - w) over unit time.
// Affine devices (f = s + l w): s and l are first scaled by ln(1 + l) / l, see to_flow. Then e^B is
// the product of 1 + l over all pulses, whatever their order; n pulses of one direction and the
// noise of one pulse come out as in closed form, (1 + l)^n and sigma f; only where up and down mix
// does their order count.
// Other devices: B is the secant slope of the flow over half a step. A pulse does not act on
// itself: n pulses in a random order move by A + (B A - E) / 2 + ..., E = A B / (n_up + n_down), so
// that - phi(B) E / 2 joins A.
#include "core/update.h"

namespace pulseline {

// scale sqrt(v), |relative error| < 6.6e-4 (own fit), 0 at v = 0: the width of noise. A shift gives
// 1 / sqrt(v) to 3.5 %, one Newton step the rest; a fourth of the time of an IEEE root.
template <class F>
PL_HD F noise_width(F v, float scale) {
  const F y = as_float(decltype(as_bits(v))(0x5f200000u) - (as_bits(v) >> 1)), t = v * y;
  return t * fma(t * y, F(-0.70394967f * scale), F(1.681912f * scale));
}

// (e^b - 1) / b: |b| <= 1/2 by its series, relative error < b^4 / 60; beyond that 1 / (1 - b/2 +
// b^2/12), which a group's limit on travel makes rare.
// NEAR: |b| <= 1/2 is known.
template <bool NEAR, class F>
PL_HD F relaxation(F b) {
  const F series = fma(fma(fma(b, F(1.0f / 24.0f), F(1.0f / 6.0f)), b, F(0.5f)), b, F(1.0f));
  if (NEAR) return series;
  const auto far = F(0.5f) < absolute(b);
  if (!any(far)) return series;
  return select(far, F(1.0f) / fma(b, fma(b, F(1.0f / 12.0f), F(-0.5f)), F(1.0f)), series);
}

// ln(1 + l) / l, error l^3 / 4; positive for every l.
template <class F>
PL_HD F flow_rate(F l) {
  return fma(fma(l, F(1.0f / 3.0f), F(-0.5f)), l, F(1.0f));
}
// Makes steps those of a flow that reaches in unit time what one pulse does.
template <class Device, class F>
PL_HD void to_flow(Crosspoint<F>& c) {
  if (!Device::kAffine || !Device::kSlopes) return;
  const F up = flow_rate(c.slope_up), down = flow_rate(c.slope_down);
  c.up = c.up * up;
  c.down = c.down * down;
  c.slope_up = c.slope_up * up;
  c.slope_down = c.slope_down * down;
  if constexpr (Device::kOwnNoise) {
    c.extra_up = c.extra_up * up;
    c.extra_down = c.extra_down * down;
  }
}

template <class F>
struct Counts {  // pulses of a group and the variance of their number
  F up, down, variance_up, variance_down;
};

// What a group does to the weight before noise.
template <class F>
struct Flow {
  F move, slope, self;  // A, B, E
};

template <class Device, class F>
PL_HD Flow<F> flow_of(const Device& device, const Crosspoint<F>& c, F w, const Counts<F>& n,
                      F move) {
  const F zero(0.0f);
  if (!Device::kSlopes && Device::kAffine) return {move, zero, zero};
  if (Device::kAffine) return {move, fma(n.up, c.slope_up, n.down * c.slope_down), zero};
  const F half = clip(fma(move, F(0.5f), w), c.hi, c.lo);
  const F later = fma(n.up, device.step(c, half, Always()), n.down * device.step(c, half, Never()));
  const F secant = min(((later - move) * F(2.0f)) / move, F(3.0f));
  const F slope = select(zero < absolute(move), secant, zero);
  return {move, slope, (move * slope) / max(n.up + n.down, F(1.0f))};
}

// The crosspoint went through `to_flow`. MOMENTS: the counts are uncertain, their variances enter.
// NEAR: |B| <= 1/2 is known.
template <bool MOMENTS, bool NEAR = false, class Device, class F>
PL_HD F relax(const Device& device, const Crosspoint<F>& c, F w, const Counts<F>& n, float sigma,
              F xi, bool additive) {
  const F up = device.step(c, w, Always()), down = device.step(c, w, Never());
  const F moved_up = n.up * up, moved_down = n.down * down;
  F cycle;
  if (Device::kAdditive && additive) {
    const F one_up = device.noise_scale(c, w, up, Always());
    const F one_down = device.noise_scale(c, w, down, Never());
    cycle = fma(n.up, one_up * one_up, n.down * (one_down * one_down));
  } else {
    cycle = fma(moved_up, up, moved_down * down);
  }
  F width;
  if (MOMENTS) {
    const F counts = fma(n.variance_up, up * up, n.variance_down * (down * down));
    width = noise_width(fma(cycle, F(sigma * sigma), counts), 1.0f);
  } else {
    width = noise_width(cycle, sigma);
  }
  const Flow<F> flow = flow_of(device, c, w, n, moved_up + moved_down);
  const F phi = relaxation<NEAR>(flow.slope);
  F move = fma(width, xi, flow.move);
  if (!Device::kAffine) move = fma(flow.self * phi, F(-0.5f), move);
  return clip(fma(move, phi, w), c.hi, c.lo);
}

// Line factors of `moments`: a train of bl slots with c of them set.
template <class F>
struct LineFactors {
  F count, spread;  // c and c (bl - c)
};
template <class F>
PL_HD LineFactors<F> line_factors(F c, F bl) {
  return {c, c * (bl - c)};
}
// Row side carries the normalisation: mean 1/bl, variance 1/(bl^2 (bl - 1)), 0 at bl = 1.
template <class F>
PL_HD LineFactors<F> row_factors(F c, F bl) {
  const F one(1.0f);
  const LineFactors<F> f = line_factors(c, bl);
  return {f.count / bl, select(one < bl, f.spread / ((bl * bl) * (bl - one)), F(0.0f))};
}

// From the four sums over samples: total and signed counts, total and signed count variances.
template <class F>
PL_HD Counts<F> counts_of(F total, F balance, F variance, F variance_balance) {
  const F half(0.5f), zero(0.0f);
  return {max((total + balance) * half, zero), max((total - balance) * half, zero),
          max((variance + variance_balance) * half, zero),
          max((variance - variance_balance) * half, zero)};
}

}  // namespace pulseline
