#pragma once
// Python's description of one tile's update as the task of a launch: where it is, how large, whose
// draws, rate and trains, parameters of the device model in the order of its kFields.
#include <string>
#include <vector>

#include "bind/cuda.h"
#include "cuda/update.h"

namespace pulseline::bind {

using Description =
    std::tuple<UpdateAddresses, UpdateSizes, UpdateKey, double, PulseSettings, std::vector<float>>;

inline cuda::Task task_of(const Description& d) {
  const auto& [address, size, key, lr, pulses, params] = d;
  cuda::Task t = {};
  UpdateArgs& a = t.args;
  a = update_args(lr, pulses);
  a.w = pointer<float>(address.w);
  a.step = pointer<const uint32_t>(address.step);
  a.slope = pointer<const uint32_t>(address.slope);
  a.bound = pointer<const uint32_t>(address.bound);
  a.x = pointer<const float>(address.x);
  a.d = pointer<const float>(address.d);
  a.fired = pointer<int64_t>(address.fired);
  a.rows = size.rows;
  a.cols = size.cols;
  a.batch = size.batch;
  a.stream = stream_of(key);
  a.stream.trains = trains_of(key);
  a.counter = pointer<const int64_t>(address.counter);
  a.fidelity = int32_t(key.fidelity);
  cuda::lay_out(t, pointer<void>(address.workspace));
  return t;
}

// Refuses what a launch cannot hold.
inline void check_count(size_t tasks) {
  if (tasks == 0 || tasks > size_t(cuda::kTasks))
    throw pybind11::value_error(std::to_string(tasks) + " tasks; use 1 to " +
                                std::to_string(cuda::kTasks));
}

}  // namespace pulseline::bind
