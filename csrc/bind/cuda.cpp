// Module _cuda: raw device pointers and stream handles in, no torch header. Importing it needs no
// driver and touches no GPU. Checks live in Python.
#include "bind/cuda.h"

#include <string>

#include "core/devices/list.h"

namespace py = pybind11;
using namespace pulseline;

#ifndef PULSELINE_ARCHS
#define PULSELINE_ARCHS ""
#endif

PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
  m.doc() = "Compiled CUDA kernels. Device pointers in; no torch headers. Used by pulseline.ops.";
  m.attr("NUMBERING") = kNumbering;
  m.attr("LAYOUT") = bind::layout();
  m.attr("ARCHS") = PULSELINE_ARCHS;
  py::list devices;
#define PULSELINE_DESCRIBE(D) \
  devices.append(py::make_tuple(D::kName, D::kFields, D::kAffine, D::kSlopes));
  PULSELINE_DEVICES(PULSELINE_DESCRIBE)
#undef PULSELINE_DESCRIBE
  m.attr("DEVICES") = devices;
  // "": a GPU can be used; else why not.
  m.def("reason", [] {
    int count = 0, driver = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    // Without a driver the runtime says that it is too old.
    if (error != cudaSuccess && cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0)
      return std::string("no NVIDIA driver is installed");
    if (error != cudaSuccess) return std::string(cudaGetErrorString(error));
    return std::string(count ? "" : "no CUDA device is visible");
  });
  bind::bind_update(m);
  bind::bind_read(m);
  bind::bind_retention(m);
  bind::bind_transfer(m);
}
