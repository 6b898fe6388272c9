#pragma once
// Python's list of a train configuration as its struct, for every backend.
#include <vector>

#include "core/pulses.h"

namespace pulseline::bind {

// train: lr, granularity, desired_bl, fixed_bl, update_management, update_bl_management.
inline TrainConfig train_config(const std::vector<float>& train) {
  return {train.at(0),          train.at(1),          int32_t(train.at(2)),
          int32_t(train.at(3)), int32_t(train.at(4)), int32_t(train.at(5))};
}

}  // namespace pulseline::bind
