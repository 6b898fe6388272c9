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
