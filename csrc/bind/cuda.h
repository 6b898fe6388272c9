#pragma once
// What the files that bind CUDA launchers share. Each adds its functions to module _cuda.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>

#include "bind/layout.h"
#include "cuda/check.h"

namespace pulseline::bind {

inline cudaStream_t cuda_stream(uint64_t handle) { return reinterpret_cast<cudaStream_t>(handle); }

void bind_update(pybind11::module_& m);
void bind_read(pybind11::module_& m);
void bind_retention(pybind11::module_& m);
void bind_transfer(pybind11::module_& m);

}  // namespace pulseline::bind
