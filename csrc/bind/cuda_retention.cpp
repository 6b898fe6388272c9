// What happens between pulses, of module _cuda; `gpu` is the device's number, `stream` a handle.
#include "bind/checks.h"
#include "bind/cuda_task.h"
#include "cuda/construct.h"
#include "cuda/retention.h"

namespace py = pybind11;

namespace pulseline::bind {
namespace {

// w, step, bound, words and visible, hidden, step: addresses of [rows][cols].
void retain(uint64_t w, uint64_t step, uint64_t bound, uint64_t words, int64_t rows, int64_t cols,
            bool reset, double amount, int64_t k, const DrawKey& key, int gpu, uint64_t stream) {
  const RetentionArgs a =
      retention_args({w, step, bound, words, rows, cols}, reset, amount, k, key);
  PL_CHECK(cudaSetDevice(gpu));
  py::gil_scoped_release nogil;
  PL_CHECK(cuda::launch_retain(a, cuda_stream(stream)));
}

void disturb(uint64_t hidden, uint64_t step, uint64_t visible, int64_t rows, int64_t cols,
             double deviation, uint64_t counters, const DrawKey& key, int gpu, uint64_t stream) {
  check_disturb(hidden, step, visible, rows * cols, deviation, counters);
  PL_CHECK(cudaSetDevice(gpu));
  const cuda::WrittenCells cells = {pointer<const float>(hidden), pointer<const uint32_t>(step),
                                    pointer<float>(visible), rows, cols};
  const int64_t* counter = &pointer<const Counters>(counters)->update;
  py::gil_scoped_release nogil;
  PL_CHECK(
      cuda::launch_disturb(cells, stream_of(key), counter, float(deviation), cuda_stream(stream)));
}

// A task whose w is what is read, the address of the hidden weight, the deviation of the noise.
using Described = std::tuple<Description, uint64_t, float>;

// The draws of an update that has moved its counter.
cuda::Task before_update(cuda::Task t) {
  t.args.k = uint64_t(0) - uint64_t(t.args.batch);
  return t;
}

void redraw(const std::vector<Described>& described, int gpu, uint64_t stream) {
  PL_CHECK(cudaSetDevice(gpu));
  check_count(described.size());
  std::vector<cuda::Redraw> redraws;
  for (const auto& [task, hidden, deviation] : described)
    redraws.push_back({before_update(task_of(task)), pointer<const float>(hidden), deviation});
  py::gil_scoped_release nogil;
  PL_CHECK(cuda::launch_redraw(redraws.data(), int(redraws.size()), cuda_stream(stream)));
}

// Words that nobody stores; slope: 0: left out.
void construct(int device, const std::vector<float>& params, const DrawKey& key, int64_t rows,
               int64_t cols, uint64_t step, uint64_t slope, uint64_t bound, int gpu,
               uint64_t stream) {
  check_params(params);
  PL_CHECK(cudaSetDevice(gpu));
  const cuda::ConstructArgs a = {
      stream_of(key),          rows, cols, pointer<uint32_t>(step), pointer<uint32_t>(slope),
      pointer<uint32_t>(bound)};
  py::gil_scoped_release nogil;
  PL_CHECK(cuda::launch_construct(a, device, params.data(), cuda_stream(stream)));
}

void construct_between(const RetentionSettings& settings, const DrawKey& key, int64_t rows,
                       int64_t cols, uint64_t words, int gpu, uint64_t stream) {
  PL_CHECK(cudaSetDevice(gpu));
  py::gil_scoped_release nogil;
  PL_CHECK(cuda::launch_construct_retention(retention_params(settings), stream_of(key), rows, cols,
                                            pointer<uint32_t>(words), cuda_stream(stream)));
}

}  // namespace

void bind_retention(py::module_& m) {
  m.def("construct", &construct);
  m.def("construct_retention", &construct_between);
  m.def("retain", &retain);
  m.def("disturb", &disturb);
  m.def("redraw", &redraw);
}

}  // namespace pulseline::bind
