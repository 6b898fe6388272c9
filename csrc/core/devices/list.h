#pragma once
// The ONE list of device models: kernels, bindings, dispatch and the test matrix follow it.
#include "core/devices/constant_step.h"
#include "core/devices/exp_step.h"
#include "core/devices/linear_step.h"
#include "core/devices/soft_bounds.h"

#define PULSELINE_DEVICES(X) X(ConstantStep) X(LinearStep) X(SoftBounds) X(ExpStep)
