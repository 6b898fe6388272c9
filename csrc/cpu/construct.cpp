// Device parameters and initial weights: once per tile, a function of (seed, tile, row, column).
#include "cpu/slices.h"

namespace pulseline::cpu {

void construct(int device, const float* params, const Stream& stream, int64_t rows, int64_t cols,
               uint32_t* step, uint32_t* slope, uint32_t* bound, int threads) {
  const AnyDevice model(device, params);
  const auto fill = [&](const auto& d, int64_t r0, int64_t r1) {
    for (int64_t i = r0; i < r1; ++i)
      for (int64_t j = 0; j < cols; ++j) {
        const Stored s = construct_crosspoint(d, stream, uint32_t(i), uint32_t(j));
        step[i * cols + j] = s.step;
        slope[i * cols + j] = s.slope;
        bound[i * cols + j] = s.bound;
      }
  };
  parallel_chunks(rows, kRowChunk, rows * cols < 4096 ? 1 : threads, [&](int64_t r0, int64_t r1) {
#define PULSELINE_CONSTRUCT(D) \
  if (device == k##D) fill(*reinterpret_cast<const D*>(model.bytes), r0, r1);
    PULSELINE_DEVICES(PULSELINE_CONSTRUCT)
#undef PULSELINE_CONSTRUCT
  });
}

void initial_normals(const Stream& stream, int64_t rows, int64_t cols, float* out) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j)
      out[i * cols + j] = probit(draw4(stream, kInitialisation, uint64_t(i), uint32_t(j), 0).v[0]);
}

}  // namespace pulseline::cpu
