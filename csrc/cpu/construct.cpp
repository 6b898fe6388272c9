// Device parameters and initial weights: once per tile, a function of (seed, tile, row, column).
// Loops: construct.inl.
#include "cpu/slices.h"

namespace pulseline::cpu {

void construct(int device, const float* params, const Stream& stream, const Rows& rows,
               uint32_t* step, uint32_t* slope, uint32_t* bound, int threads) {
  const AnyDevice model(device, params);
  const ParameterKeys keys = parameter_keys(stream);
  over_rows(rows, threads, [&](int64_t r0, int64_t r1, int64_t col0) {
    const ConstructJob job = {rows.first, rows.cols, keys, {step, slope, bound}, col0};
    table().construct[device](job, model.bytes, r0, r1);
  });
}

void construct_retention(const RetentionParams& p, const Stream& stream, const Rows& rows,
                         uint32_t* words, int threads) {
  const ParameterKeys keys = parameter_keys(stream);
  uint32_t* walk = words + rows.count * rows.cols;
  over_rows(rows, threads, [&](int64_t r0, int64_t r1, int64_t col0) {
    const ConstructJob job = {rows.first, rows.cols, keys, {words, walk, nullptr}, col0};
    table().construct_retention(job, &p, r0, r1);
  });
}

void initial_normals(const Stream& stream, const Rows& rows, float* out, int threads) {
  const Keys key = draw_keys(stream, kInitialisation, 0, 0);
  over_rows(rows, threads, [&](int64_t r0, int64_t r1, int64_t col0) {
    table().initial_normals({out, rows.first, rows.cols, key, col0}, r0, r1);
  });
}

}  // namespace pulseline::cpu
