// The update of module _cuda; `gpu` is the device's number, `stream` a handle. A task is one tile's
// call as five sequences:
//   addresses  w, step, slope, bound, x, d, workspace, fired (0: not counted)
//   sizes      rows, cols, batch
//   key        seed, tile, k
//   train      lr, granularity, desired_bl, fixed_bl, update_management, update_bl_management,
//              group_size, coarseness, noise
//   params     of the device model, in the order of its kFields
#include <string>
#include <vector>

#include "bind/cuda.h"
#include "bind/train_args.h"
#include "cuda/update.h"

namespace py = pybind11;

namespace pulseline::bind {
namespace {

using Description = std::tuple<std::vector<uint64_t>, std::vector<int64_t>, std::vector<uint64_t>,
                               std::vector<float>, std::vector<float>>;

cuda::Task task_of(const Description& d, int fidelity) {
  const auto& [address, size, key, train, params] = d;
  cuda::Task t = {};
  UpdateArgs& a = t.args;
  a.w = pointer<float>(address.at(0));
  a.step = pointer<const uint32_t>(address.at(1));
  a.slope = pointer<const uint32_t>(address.at(2));
  a.bound = pointer<const uint32_t>(address.at(3));
  a.x = pointer<const float>(address.at(4));
  a.d = pointer<const float>(address.at(5));
  a.fired = pointer<int64_t>(address.at(7));
  a.rows = size.at(0);
  a.cols = size.at(1);
  a.batch = size.at(2);
  a.stream = {key.at(0), uint32_t(key.at(1))};
  a.k = key.at(2);
  a.train = train_config(train);
  a.group_size = int64_t(train.at(6));
  a.coarseness = train.at(7);
  a.noise = int32_t(train.at(8));
  a.fidelity = fidelity;
  cuda::lay_out(t, pointer<void>(address.at(6)));
  return t;
}

// Tasks of one device model and fidelity, checked against what a launch can hold.
struct Tasks {
  std::vector<cuda::Task> tasks;
  std::vector<std::vector<float>> held;  // the caller's may be a temporary
  std::vector<const float*> params;
  cuda::Call call;
  Tasks(const std::vector<Description>& described, int device, int fidelity, int gpu,
        uint64_t stream) {
    PL_CHECK(cudaSetDevice(gpu));
    if (described.empty() || described.size() > size_t(cuda::kTasks))
      throw py::value_error(std::to_string(described.size()) + " tasks; use 1 to " +
                            std::to_string(cuda::kTasks));
    size_t bytes = 0;
#define PULSELINE_SIZE(D) \
  if (device == cuda::k##D) bytes = sizeof(D);
    PULSELINE_DEVICES(PULSELINE_SIZE)
#undef PULSELINE_SIZE
    for (const Description& d : described) {
      tasks.push_back(task_of(d, fidelity));
      const auto& p = std::get<4>(d);
      if (!bytes || p.size() * sizeof(float) != bytes)
        throw py::value_error("device " + std::to_string(device) + " with " +
                              std::to_string(p.size()) + " parameters");
      held.push_back(p);
    }
    for (const auto& p : held) params.push_back(p.data());
    call = {tasks.data(), int(tasks.size()), device, params.data(), stream_of(stream)};
  }
};

}  // namespace

void bind_update(py::module_& m) {
  m.attr("MOST_TASKS") = cuda::kTasks;
  // Bytes of workspace that a task needs; its address is not read. The first 8 hold, afterwards,
  // -1 or 2 sample + (0: x, 1: d) of the first value that is not finite.
  m.def("update_workspace", [](const Description& d, int fidelity) {
    cuda::Task t = task_of(d, fidelity);
    return cuda::lay_out(t, nullptr);
  });
  m.def("update", [](const std::vector<Description>& described, int device, int fidelity, int gpu,
                     uint64_t stream) {
    const Tasks t(described, device, fidelity, gpu, stream);
    py::gil_scoped_release nogil;
    PL_CHECK(cuda::launch_update(t.call));
  });
}

}  // namespace pulseline::bind
