#pragma once
// Random numbers that a crosspoint keeps for life: device parameters, decay, initial weight.
// Each parameter has hash keys of its own per crossbar (Philox, purpose kDeviceParameters, k = 0,
// draw = number of the parameter); a crosspoint hashes row kRowStride + column kColumnStride with
// them, once per parameter. A normal is the byte sum of that hash: range +-4.85 sigma.
// Cheap enough that an update may draw a device anew instead of loading it. A crosspoint of soft
// bounds with all variations, in AVX-512 on one shared core: 2.0 ns; with words from Philox 3.6,
// with the inverse distribution on top 6.4; an update of 64 samples takes 2 to 15.
#include "core/rng.h"

namespace pulseline {

enum Parameter : int {  // numbers of draws: part of the physics
  kUpperBound = 0,
  kLowerBound = 1,
  kGain = 2,
  kAsymmetry = 3,
  kModelUp = 4,  // of the model: slope, power or tilt
  kModelDown = 5,
  kReference = 6,
  kCorrupt = 8,
  kStuckAt = 9,
  kLifetime = 10,
  kResetPoint = 11,
  kDiffusivity = 12,
  kDriftExponent = 13,
  kParameters = 14,
};

struct ParameterKeys {  // of one crossbar
  Keys of[kParameters];
};
PL_HD ParameterKeys parameter_keys(const Stream& s) {
  ParameterKeys keys;
  for (int n = 0; n < kParameters; ++n)
    keys.of[n] = draw_keys(s, kDeviceParameters, 0, uint32_t(n));
  return keys;
}

// The draws of one crosspoint, or of a vector of them. U is uint32_t or a SIMD vector of it.
template <class U>
struct ParameterDraws {
  const ParameterKeys& keys;
  U place;  // row * kRowStride + column * kColumnStride

  PL_HD auto normal(Parameter n) const {
    return byte_sum_polynomial(byte_sum(hash(place, keys.of[n].k0, keys.of[n].k1)));
  }
  PL_HD auto uniform(Parameter n) const {
    return uniform24(hash(place, keys.of[n].k0, keys.of[n].k1));
  }
};

}  // namespace pulseline
