// The update of module _cuda; `gpu` is the device's number, `stream` a handle. A task: see
// cuda_task.h.
#include "bind/cuda_task.h"

namespace py = pybind11;

namespace pulseline::bind {
namespace {

// Tasks of one device model and fidelity, checked against what a launch can hold.
struct Tasks {
  std::vector<cuda::Task> tasks;
  std::vector<std::vector<float>> held;  // the caller's may be a temporary
  std::vector<const float*> params;
  cuda::Call call;
  Tasks(const std::vector<Description>& described, int device, int gpu, uint64_t stream) {
    PL_CHECK(cudaSetDevice(gpu));
    check_count(described.size());
    size_t bytes = 0;
#define PULSELINE_SIZE(D) \
  if (device == cuda::k##D) bytes = sizeof(D);
    PULSELINE_DEVICES(PULSELINE_SIZE)
#undef PULSELINE_SIZE
    for (const Description& d : described) {
      tasks.push_back(task_of(d));
      const auto& p = std::get<std::vector<float>>(d);
      if (!bytes || p.size() * sizeof(float) != bytes)
        throw py::value_error("device " + std::to_string(device) + " with " +
                              std::to_string(p.size()) + " parameters");
      held.push_back(p);
    }
    for (const auto& p : held) params.push_back(p.data());
    call = {tasks.data(), int(tasks.size()), device, params.data(), cuda_stream(stream), nullptr};
  }
};

}  // namespace

void bind_update(py::module_& m) {
  m.attr("MOST_TASKS") = cuda::kTasks;
  // Bytes of workspace that a task needs; its address is not read. The first 8 hold, afterwards,
  // -1 or 2 sample + (0: x, 1: d) of the first value that is not finite.
  m.def("update_workspace", [](const Description& d) {
    cuda::Task t = task_of(d);
    return cuda::lay_out(t, nullptr);
  });
  m.def("update",
        [](const std::vector<Description>& described, int device, int gpu, uint64_t stream) {
          const Tasks t(described, device, gpu, stream);
          py::gil_scoped_release nogil;
          PL_CHECK(cuda::launch_update(t.call));
        });
  // One task and its taps (checked, see check_tapped): where they are, on the host and on the GPU,
  // and where their values go.
  m.def("update_tapped", [](const Description& described, uint64_t host, uint64_t taps,
                            int64_t count, uint64_t tapped, int device, int gpu, uint64_t stream) {
    Tasks t({described}, device, gpu, stream);
    const cuda::Taps all = {pointer<const int32_t>(taps), pointer<const int32_t>(host),
                            int32_t(count), pointer<float>(tapped)};
    t.call.taps = &all;
    py::gil_scoped_release nogil;
    PL_CHECK(cuda::launch_update(t.call));
  });
}

}  // namespace pulseline::bind
