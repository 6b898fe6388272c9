// What a crosspoint has for life, see construct.h: one thread draws one crosspoint after the other.
#include "cuda/cells.h"
#include "cuda/construct.h"

namespace pulseline::cuda {
namespace {

constexpr int kThreads = kCellColumns * kCellRows;

PL_DEVICE uint32_t place_of(uint32_t row, uint32_t column) {
  return row * kRowStride + column * kColumnStride;
}

template <class D>
__global__ void __launch_bounds__(kThreads)
    construct_kernel(const __grid_constant__ D device, const __grid_constant__ ParameterKeys keys,
                     const __grid_constant__ ConstructArgs a) {
  for_cells(a.rows, a.cols, [&](uint32_t i, uint32_t j, int64_t o) {
    const ParameterDraws<uint32_t> draws = {keys, place_of(i, j)};
    const Stored<uint32_t> c = construct_crosspoint(device, draws);
    a.step[o] = c.step;
    if (a.slope) a.slope[o] = c.slope;
    a.bound[o] = c.bound;
  });
}

__global__ void __launch_bounds__(kThreads)
    construct_retention_kernel(const __grid_constant__ RetentionParams p,
                               const __grid_constant__ ParameterKeys keys, uint32_t* words,
                               int64_t rows, int64_t cols) {
  for_cells(rows, cols, [&](uint32_t i, uint32_t j, int64_t o) {
    const RetentionPairs<uint32_t> c =
        construct_retention(p, ParameterDraws<uint32_t>{keys, place_of(i, j)});
    words[o] = c.fade;
    words[rows * cols + o] = c.walk;
  });
}

template <class D>
cudaError_t construct(const ConstructArgs& a, const float* params, cudaStream_t stream) {
  D device;
  std::memcpy(static_cast<void*>(&device), params, sizeof(D));
  return launch(construct_kernel<D>, cell_grid(a.rows, a.cols), cell_block(), 0, stream, device,
                parameter_keys(a.stream), a);
}

}  // namespace

cudaError_t launch_construct(const ConstructArgs& a, int device, const float* params,
                             cudaStream_t stream) {
  if (a.rows == 0 || a.cols == 0) return cudaSuccess;
#define PULSELINE_CASE(D) \
  if (device == k##D) return construct<D>(a, params, stream);
  PULSELINE_DEVICES(PULSELINE_CASE)
#undef PULSELINE_CASE
  return cudaErrorInvalidValue;
}

cudaError_t launch_construct_retention(const RetentionParams& p, const Stream& draws, int64_t rows,
                                       int64_t cols, uint32_t* words, cudaStream_t stream) {
  if (rows == 0 || cols == 0) return cudaSuccess;
  return launch(construct_retention_kernel, cell_grid(rows, cols), cell_block(), 0, stream, p,
                parameter_keys(draws), words, rows, cols);
}

}  // namespace pulseline::cuda
