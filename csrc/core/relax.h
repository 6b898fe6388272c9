#pragma once
// Several pulses on one crosspoint in one step, order forgotten (fidelities grouped and moments).
//   n_up, n_down  counts;  f_up, f_down  signed steps at the weight before the group
//   affine step s + l w: n pulses multiply the distance to the fixed point by (1 + l)^n, which is
//   the flow dw/dt = A + B w over unit time with rates weighted by kappa = ln(1 + l) / l:
//     A = n_up kappa_up s_up + n_down kappa_down s_down,  B likewise with the slopes
//   other devices: B is the secant slope of the flow over half a step.
//   w <- clip(w + (A + B w + sqrt(v) xi) / (1 - B/2 + B^2/12))       (e^B - 1)/B to fourth order
//   v = sigma^2 (n_up f_up^2 + n_down f_down^2) + var(n_up) f_up^2 + var(n_down) f_down^2
// Exact for one direction up to kappa's truncation; for mixed directions up to the order.
#include "core/update.h"

namespace pulseline {

// ln(1 + l) / l, l clamped to [-1 + 2^-8, 1]; series to l^6: |error| < |l|^7 / (8 (1 - |l|)).
template <class F>
PL_HD F kappa(F l) {
  l = min(max(l, F(-1.0f + 0x1p-8f)), F(1.0f));
  F p = F(1.0f / 7.0f);
  p = fma(p, l, F(-1.0f / 6.0f));
  p = fma(p, l, F(0.2f));
  p = fma(p, l, F(-0.25f));
  p = fma(p, l, F(1.0f / 3.0f));
  p = fma(p, l, F(-0.5f));
  return fma(p, l, F(1.0f));
}

template <class F>
struct Rates {  // kappa-weighted steps and slopes of an affine device
  F up, down, slope_up, slope_down;
};

template <class Device, class F>
PL_HD Rates<F> rates_of(const Crosspoint<F>& c) {
  if (!Device::kSlopes) return {c.up, c.down, F(0.0f), F(0.0f)};
  const F u = kappa(c.slope_up), d = kappa(c.slope_down);
  return {c.up * u, c.down * d, c.slope_up * u, c.slope_down * d};
}

template <class F>
struct Counts {  // pulses of a group and the variance of their number
  F up, down, variance_up, variance_down;
};

// MOMENTS: the counts are uncertain, their variances enter.
template <bool MOMENTS, class Device, class F>
PL_HD F relax(const Device& device, const Crosspoint<F>& c, const Rates<F>& rates, F w,
              const Counts<F>& n, float sigma, F xi, bool additive) {
  const F up = device.step(c, w, Always()), down = device.step(c, w, Never());
  F move, b;
  if (Device::kAffine) {
    b = fma(n.up, rates.slope_up, n.down * rates.slope_down);
    move = fma(b, w, fma(n.up, rates.up, n.down * rates.down));
  } else {
    move = fma(n.up, up, n.down * down);
    const F half = clip(fma(move, F(0.5f), w), c.hi, c.lo);
    const F later =
        fma(n.up, device.step(c, half, Always()), n.down * device.step(c, half, Never()));
    const F secant = ((later - move) * F(2.0f)) / move;
    b = select(F(0.0f) < absolute(move), min(secant, F(3.0f)), F(0.0f));
  }
  const F noise_up = additive ? device.noise_scale(c, w, up, Always()) : up;
  const F noise_down = additive ? device.noise_scale(c, w, down, Never()) : down;
  const F cycle = fma(n.up, noise_up * noise_up, n.down * (noise_down * noise_down));
  F variance = cycle * F(sigma * sigma);
  if (MOMENTS)
    variance =
        fma(cycle, F(sigma * sigma), fma(n.variance_up, up * up, n.variance_down * (down * down)));
  move = fma(square_root(variance), xi, move);
  return clip(w + move / fma(b, fma(b, F(1.0f / 12.0f), F(-0.5f)), F(1.0f)), c.hi, c.lo);
}

// Line factors of `moments`: a train of bl slots with c of them set.
struct LineFactors {
  float count, spread;  // c and c (bl - c)
};
PL_HD LineFactors line_factors(uint32_t c, int bl) {
  return {float(int32_t(c)), float(int32_t(c)) * float(bl - int32_t(c))};
}
// Row side carries the normalisation: mean 1/bl, variance 1/(bl^2 (bl - 1)), 0 at bl = 1.
PL_HD LineFactors row_factors(uint32_t c, int bl) {
  const LineFactors f = line_factors(c, bl);
  const float n = float(bl);
  return {f.count / n, bl > 1 ? f.spread / ((n * n) * (n - 1.0f)) : 0.0f};
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
