#pragma once
// What one crosspoint does in one sample. A POSITIVE coincidence count raises the weight: the
// driver feeds sign(-x_j d_i); nothing else in the project chooses a sign.
//   n      coincidences of the sample (0..31)      f = step(w): signed noise-free step at w
//   exact  w = clip(fma(n + sigma sqrt(n) xi, f, w))
//          additive-noise devices: w = clip(fma(sigma sqrt(n) xi, s, fma(n, f, w))), s: noise_scale
//   strict every pulse on its own: n = 1, fresh xi, clip after each
//   expected  no trains: w = clip(fma(E[n], f, w)), E[n] see mean_pulses   (Wu et al. 2024)
#include "core/devices/list.h"

namespace pulseline {

// Between bounds; a weight that is NaN stays so. The SIMD types have faster ones, which lose a NaN:
// their kernels look at the weight when they store it.
#if defined(__CUDA_ARCH__)
PL_HD float clip(float w, float hi, float lo) {
  asm("min.NaN.f32 %0, %0, %1;" : "+f"(w) : "f"(hi));
  asm("max.NaN.f32 %0, %0, %1;" : "+f"(w) : "f"(lo));
  return w;
}
#else
PL_HD float clip(float w, float hi, float lo) { return max(lo, min(hi, w)); }
#endif

// root = sigma sqrt(n). A crosspoint with n = 0 stays where it is, provided that it lies within its
// bounds, which programming and every update guarantee: a long step is not even computed then.
template <class Device, class F>
PL_HD F pulse(const Device& device, const Crosspoint<F>& c, F w, decltype(F() < F()) up, F n,
              F root, F xi, bool additive) {
  if (Device::kLongStep && !any(F(0.0f) < n)) return w;
  const F f = device.step(c, w, up);
  const F moved = additive ? fma(root * xi, device.noise_scale(c, w, f, up), fma(n, f, w))
                           : fma(fma(root, xi, n), f, w);
  return clip(moved, c.hi, c.lo);
}

}  // namespace pulseline
