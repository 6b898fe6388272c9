#pragma once
// Counted pulses and converters of one-hot reads on the GPU, a thread for every crosspoint.
// Physics: core/update.h and core/read.h, with the bits of the CPU (cpu/counted.cpp,
// cpu/transfer.cpp).
#include "cuda/read.h"
#include "cuda/update.h"

namespace pulseline::cuda {

struct CountedArgs {
  float* w;
  const uint32_t *step, *slope, *bound;  // [rows][cols]
  const int32_t* columns;                // [lines]
  const float* counts;                   // [rows][lines]
  float* visible;                        // [rows][cols] w with write noise; nullptr: none
  int64_t rows, cols, lines;
  Stream stream;
  uint64_t k;  // number of the first line
  int32_t fidelity;
  float deviation;
};
// device < 0: the ideal one, whose params are its granularity.
cudaError_t launch_counted(const CountedArgs& a, int device, const float* params,
                           cudaStream_t stream);

// args: w: [rows][batch] values, y: [rows][batch].
cudaError_t launch_convert(const ReadArgs& args, const Chain& chain, cudaStream_t stream);

}  // namespace pulseline::cuda
