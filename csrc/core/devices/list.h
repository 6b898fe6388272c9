#pragma once
// The ONE list of device models: kernels, bindings, dispatch and the test matrix follow it.
#include "core/devices/constant_step.h"
#include "core/devices/exp_step.h"
#include "core/devices/linear_step.h"
#include "core/devices/piecewise_step.h"
#include "core/devices/pow_step.h"
#include "core/devices/pow_step_reference.h"
#include "core/devices/soft_bounds.h"
#include "core/devices/soft_bounds_reference.h"

#define PULSELINE_DEVICES(X) \
  X(ConstantStep)            \
  X(LinearStep)              \
  X(SoftBounds) X(ExpStep) X(SoftBoundsReference) X(PowStep) X(PowStepReference) X(PiecewiseStep)

namespace pulseline {

// Whether a model has a member: `Has` with the member's type, or else the ellipsis.
#define PULSELINE_MEMBER(NAME, TYPE)           \
  template <class D>                           \
  constexpr bool has_##NAME(decltype(TYPE)*) { \
    return true;                               \
  }                                            \
  template <class D>                           \
  constexpr bool has_##NAME(...) {             \
    return false;                              \
  }
PULSELINE_MEMBER(name, D::kName)
PULSELINE_MEMBER(fields, D::kFields)
PULSELINE_MEMBER(affine, D::kAffine)
PULSELINE_MEMBER(slopes, D::kSlopes)
PULSELINE_MEMBER(long_step, D::kLongStep)
PULSELINE_MEMBER(additive, D::kAdditive)
PULSELINE_MEMBER(own_noise, D::kOwnNoise)
PULSELINE_MEMBER(params, D::p.pulsed)
PULSELINE_MEMBER(additive_noise, &D::additive_noise)
PULSELINE_MEMBER(noise_scale, (&D::template noise_scale<float, bool>))
PULSELINE_MEMBER(construct, &D::template construct<uint32_t>)
PULSELINE_MEMBER(prepare, &D::template prepare<float>)
PULSELINE_MEMBER(step, (&D::template step<float, bool>))
#undef PULSELINE_MEMBER

#define PULSELINE_LACKS(D, WHAT) "device model " #D " lacks " WHAT ": see core/devices/pulsed.h"
#define PULSELINE_CHECK(D)                                                                    \
  static_assert(has_name<D>(nullptr), PULSELINE_LACKS(D, "kName"));                           \
  static_assert(has_fields<D>(nullptr), PULSELINE_LACKS(D, "kFields"));                       \
  static_assert(has_affine<D>(nullptr), PULSELINE_LACKS(D, "kAffine"));                       \
  static_assert(has_slopes<D>(nullptr), PULSELINE_LACKS(D, "kSlopes"));                       \
  static_assert(has_long_step<D>(nullptr), PULSELINE_LACKS(D, "kLongStep"));                  \
  static_assert(has_additive<D>(nullptr), PULSELINE_LACKS(D, "kAdditive"));                   \
  static_assert(has_own_noise<D>(nullptr), PULSELINE_LACKS(D, "kOwnNoise"));                  \
  static_assert(has_params<D>(nullptr), PULSELINE_LACKS(D, "Params p with PulsedParams"));    \
  static_assert(has_additive_noise<D>(nullptr), PULSELINE_LACKS(D, "additive_noise()"));      \
  static_assert(has_noise_scale<D>(nullptr), PULSELINE_LACKS(D, "noise_scale(c, w, f, up)")); \
  static_assert(has_construct<D>(nullptr), PULSELINE_LACKS(D, "construct(draws)"));           \
  static_assert(has_prepare<D>(nullptr), PULSELINE_LACKS(D, "prepare(c)"));                   \
  static_assert(has_step<D>(nullptr), PULSELINE_LACKS(D, "step(c, w, up)"));
PULSELINE_DEVICES(PULSELINE_CHECK)
#undef PULSELINE_CHECK
#undef PULSELINE_LACKS

}  // namespace pulseline
