#pragma once
// What happens between pulses on the GPU: decay, drift and diffusion of an event, a reset,
// write noise. Equations: core/retention.h, with the bits of the CPU; here are the loops.
#include "core/retention.h"
#include "cuda/update.h"

namespace pulseline::cuda {

cudaError_t launch_retain(const RetentionArgs& a, cudaStream_t stream);

// [rows][cols]: what pulses move, its pairs of steps, and what is read of it.
struct WrittenCells {
  const float* hidden;
  const uint32_t* step;
  float* visible;
  int64_t rows, cols;
};
// Write noise of programming, numbered by the array's counter of updates.
cudaError_t launch_disturb(const WrittenCells& cells, const Stream& draws, const int64_t* counter,
                           float deviation, cudaStream_t stream);

// Write noise of an update that has been done: args.w is what is read, pulses have moved `hidden`.
// args.fidelity: kExact draws the trains of any fidelity that has some; kExpected, without trains
// and noise, shows the hidden weight. Not finite: nothing is written, as by the update.
struct Redraw {
  Task task;
  const float* hidden;
  float deviation;
};
// Up to kTasks of one fidelity.
cudaError_t launch_redraw(const Redraw* redraws, int count, cudaStream_t stream);

}  // namespace pulseline::cuda
