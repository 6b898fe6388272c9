#pragma once
// What the files that bind CUDA launchers share. Each adds its functions to module _cuda.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>

#include "cuda/check.h"

namespace pulseline::bind {

template <class T>
T* pointer(uint64_t address) {
  return reinterpret_cast<T*>(address);
}
inline cudaStream_t stream_of(uint64_t handle) { return reinterpret_cast<cudaStream_t>(handle); }

void bind_update(pybind11::module_& m);
void bind_read(pybind11::module_& m);
void bind_retention(pybind11::module_& m);

}  // namespace pulseline::bind
