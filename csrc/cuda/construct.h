#pragma once
// Words of crosspoints on the GPU: where they are not stored, a call that needs them draws them
// into memory that it has for the moment, with the bits of cpu/construct.inl.
#include "core/retention.h"
#include "cuda/update.h"

namespace pulseline::cuda {

struct ConstructArgs {
  Stream stream;
  int64_t rows, cols;
  uint32_t *step, *slope, *bound;  // [rows][cols]; slope: nullptr: left out
};
// params: of the device model in the order of its kFields.
cudaError_t launch_construct(const ConstructArgs& a, int device, const float* params,
                             cudaStream_t stream);

// words: [2][rows][cols], see core/retention.h.
cudaError_t launch_construct_retention(const RetentionParams& p, const Stream& draws, int64_t rows,
                                       int64_t cols, uint32_t* words, cudaStream_t stream);

}  // namespace pulseline::cuda
