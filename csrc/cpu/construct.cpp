// Device parameters and initial weights: once per tile, a function of (seed, tile, row, column).
// Loops: construct.inl.
#include "cpu/slices.h"

namespace pulseline::cpu {

void construct(int device, const float* params, const Stream& stream, const Rows& rows,
               uint32_t* step, uint32_t* slope, uint32_t* bound, int threads) {
  const AnyDevice model(device, params);
  const ConstructJob job = {rows.first, rows.cols, parameter_keys(stream), {step, slope, bound}};
  over_rows(rows.count, rows.cols, threads, [&](int64_t r0, int64_t r1) {
    table().construct[device](job, model.bytes, rows.first + r0, rows.first + r1);
  });
}

void construct_retention(const RetentionParams& p, const Stream& stream, int64_t rows, int64_t cols,
                         uint32_t* words, int threads) {
  const ConstructJob job = {0, cols, parameter_keys(stream), {words, words + rows * cols, nullptr}};
  over_rows(rows, cols, threads,
            [&](int64_t r0, int64_t r1) { table().construct_retention(job, &p, r0, r1); });
}

void initial_normals(const Stream& stream, const Rows& rows, float* out, int threads) {
  const Keys key = draw_keys(stream, kInitialisation, 0, 0);
  over_rows(rows.count, rows.cols, threads, [&](int64_t r0, int64_t r1) {
    table().initial_normals(out, rows.first, rows.cols, key, rows.first + r0, rows.first + r1);
  });
}

}  // namespace pulseline::cpu
