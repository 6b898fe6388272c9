#pragma once
// Python's description of one tile's update as the task of a launch:
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

namespace pulseline::bind {

using Description = std::tuple<std::vector<uint64_t>, std::vector<int64_t>, std::vector<uint64_t>,
                               std::vector<float>, std::vector<float>>;

inline cuda::Task task_of(const Description& d, int fidelity) {
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

// Refuses what a launch cannot hold.
inline void check_count(size_t tasks) {
  if (tasks == 0 || tasks > size_t(cuda::kTasks))
    throw pybind11::value_error(std::to_string(tasks) + " tasks; use 1 to " +
                                std::to_string(cuda::kTasks));
}

}  // namespace pulseline::bind
