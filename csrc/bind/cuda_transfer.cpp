// Counted pulses and converters of module _cuda; `gpu` is the device's number, `stream` a handle.
// Columns and counts have been looked at.
#include "bind/checks.h"
#include "bind/cuda.h"
#include "cuda/transfer.h"

namespace py = pybind11;

namespace pulseline::bind {
namespace {

void pulse_counted(const CountedAddresses& at, int64_t rows, int64_t cols, int64_t lines,
                   int64_t number, int device, const std::vector<float>& params, double deviation,
                   const UpdateKey& key, int gpu, uint64_t stream) {
  check_params(params);
  PL_CHECK(cudaSetDevice(gpu));
  const cuda::CountedArgs a = {pointer<float>(at.w),
                               pointer<const uint32_t>(at.step),
                               pointer<const uint32_t>(at.slope),
                               pointer<const uint32_t>(at.bound),
                               pointer<const int32_t>(at.columns),
                               pointer<const float>(at.counts),
                               pointer<float>(at.visible),
                               rows,
                               cols,
                               lines,
                               stream_of(key),
                               uint64_t(number),
                               int32_t(key.fidelity),
                               float(deviation)};
  py::gil_scoped_release nogil;
  PL_CHECK(cuda::launch_counted(a, device, params.data(), cuda_stream(stream)));
}

void convert_columns(uint64_t values, uint64_t out, int64_t rows, int64_t reads, int64_t number,
                     const DrawKey& key, const ReadSettings& settings,
                     const ConverterSettings& converters, int gpu, uint64_t stream) {
  check_transfer(settings, converters, number);
  check_memory({{"out", out, 4 * rows * reads}}, {{"values", values, 4 * rows * reads}});
  PL_CHECK(cudaSetDevice(gpu));
  ReadArgs a = transfer_args(key, settings);
  a.w = pointer<const float>(values);
  a.y = pointer<float>(out);
  a.rows = rows;
  a.batch = reads;
  a.k = uint64_t(number);
  py::gil_scoped_release nogil;
  PL_CHECK(cuda::launch_convert(a, transfer_chain(a, converters), cuda_stream(stream)));
}

}  // namespace

void bind_transfer(py::module_& m) {
  m.def("pulse_counted", &pulse_counted);
  m.def("convert", &convert_columns);
}

}  // namespace pulseline::bind
