// Patches of an image, see core/unfold.h. Pointers in, the GIL released; tensors are checked in
// Python.
#include "bind/unfold.h"

#include "bind/layout.h"
#include "cpu/cpu.h"

namespace py = pybind11;

namespace pulseline {
namespace {

UnfoldArgs unfold_args(uint64_t image, uint64_t rows, uint64_t source, const bind::UnfoldSizes& n,
                       int64_t first, int64_t last) {
  UnfoldArgs a = {bind::pointer<float>(image),
                  bind::pointer<float>(rows),
                  n.channels,
                  n.sample_stride,
                  n.channel_stride,
                  {n.stride0, n.stride1, n.stride2},
                  {n.outputs0, n.outputs1, n.outputs2},
                  {n.kernel0, n.kernel1, n.kernel2},
                  {},
                  first,
                  last};
  const auto* table = bind::pointer<const int32_t>(source);
  for (int d = 0; d < kDimensions; ++d) {
    a.source[d] = table;
    table += a.outputs[d] * a.kernel[d];
  }
  return a;
}

}  // namespace

void bind_unfold(py::module_ m) {
  m.def("unfold", [](uint64_t image, uint64_t rows, uint64_t source, const bind::UnfoldSizes& n,
                     int64_t first, int64_t last, int threads) {
    const UnfoldArgs a = unfold_args(image, rows, source, n, first, last);
    py::gil_scoped_release nogil;
    cpu::unfold(a, threads);
  });
  m.def("fold", [](uint64_t image, uint64_t rows, uint64_t source, const bind::UnfoldSizes& n,
                   int64_t first, int64_t last, bool store, int threads) {
    const UnfoldArgs a = unfold_args(image, rows, source, n, first, last);
    py::gil_scoped_release nogil;
    cpu::fold(a, store, threads);
  });
}

}  // namespace pulseline
