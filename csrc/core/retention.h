#pragma once
// What happens to a crosspoint between pulses, once per `batch` samples, in this order:
//   decay      w <- w - (w - b) / T        T = max(lifetime (1 + lifetime_dtod xi), 1)
//                                          b = reset + reset_dtod xi
//   drift      w <- w 2^(-nu l)            nu = drift_nu (1 + drift_nu_dtod xi)
//                                          l = log2((t + 1) / t)
//   diffusion  w <- w + D xi               D = |diffusion (1 + diffusion_dtod xi)|
// then the clip. Over events t = 1 .. n drift alone multiplies by (n + 1)^-nu.
//   reset      w <- clip(b + reset_std xi), when asked for
// 1/T, b, D, nu are drawn once per crosspoint and stored as bf16. A stuck device does nothing.
// Write noise: what is read is w + write_noise_std dw_min xi, xi of the last sample whose pulses
// reached the crosspoint.
// Units: normalised conductance, events. Source: Gokmen & Vlasov 2016 and later work.
#include "core/update.h"

namespace pulseline {

// In the order of RETENTION of the Python package.
struct RetentionParams {
  float lifetime, lifetime_dtod, reset, reset_dtod, reset_std;
  float diffusion, diffusion_dtod, drift_nu, drift_nu_dtod;
};

template <class U>
struct RetentionPairs {
  U fade, walk;  // pairs (1/T, b) and (D, nu)
};

template <class U>
PL_HD RetentionPairs<U> construct_retention(const RetentionParams& p,
                                            const ParameterDraws<U>& draws) {
  using F = decltype(as_float(draws.place));
  const F one(1.0f);
  const F time = max(F(p.lifetime) * (one + F(p.lifetime_dtod) * draws.normal(kLifetime)), one);
  const F rate = p.lifetime > 0.0f ? one / time : F(0.0f);
  const F bias = F(p.reset) + F(p.reset_dtod) * draws.normal(kResetPoint);
  const F walk = F(p.diffusion) * (one + F(p.diffusion_dtod) * draws.normal(kDiffusivity));
  const F nu = F(p.drift_nu) * (one + F(p.drift_nu_dtod) * draws.normal(kDriftExponent));
  return {stored_pair(rate, bias), stored_pair(absolute(walk), nu)};
}

PL_HD bool is_stuck(uint32_t step) { return (step & 0x7fff7fffu) == 0; }

PL_HD float retention_normal(uint32_t row, uint32_t column, Keys key) {
  return byte_sum_normal(hash(row * kRowStride + column * kColumnStride, key.k0, key.k1));
}

// drift: l above. Adding +0 turns -0 into +0.
template <class F, class U>
PL_HD F age(F w, RetentionPairs<U> c, U bound, float drift, F xi) {
  w = fma(F(0.0f) - pair_first(c.fade), w - pair_second(c.fade), w);
  w = w * exp2_poly(F(0.0f) - pair_second(c.walk) * F(drift));
  w = fma(pair_first(c.walk), xi, w);
  return clip(w, pair_first(bound), pair_second(bound)) + F(0.0f);
}
template <class F, class U>
PL_HD F reset(RetentionPairs<U> c, U bound, float reset_std, F xi) {
  const F w = fma(F(reset_std), xi, pair_second(c.fade));
  return clip(w, pair_first(bound), pair_second(bound)) + F(0.0f);
}

}  // namespace pulseline
