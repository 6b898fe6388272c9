#pragma once
#include <pybind11/pybind11.h>

namespace pulseline {

void bind_unfold(pybind11::module_ m);

}  // namespace pulseline
