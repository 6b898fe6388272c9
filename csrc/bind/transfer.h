#pragma once
#include <pybind11/pybind11.h>

namespace pulseline {

void bind_transfer(pybind11::module_ m);

}  // namespace pulseline
