// Fidelity moments: the line counts of every sample, from its trains, as the factors whose products
// over samples are mean and variance of the counts of every crosspoint (core/relax.h). One thread
// per line and sample. The relaxation is in update_rare.cu.
#include "cuda/update_device.h"

namespace pulseline::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    factors_kernel(const __grid_constant__ Tasks tasks, Factors f) {
  const Task& t = tasks.task[0];
  const UpdateArgs& a = t.args;
  const int64_t line = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (line >= a.cols + a.rows) return;
  const bool column = line < a.cols;
  const int64_t index = column ? line : line - a.cols, lines = column ? a.cols : a.rows;
  const bool silent = refused(t);
  for (int64_t s = blockIdx.y; s < f.count; s += gridDim.y) {
    const int64_t b = f.first + s;
    const float value = silent ? 0.0f : (column ? a.x : a.d)[b * lines + index];
    const int bl = silent ? 0 : t.trains[b].bl;
    uint32_t n = 0;
    for (int w = 0; w < words_of(bl); ++w) {
      const Sub sub = t.subs[b * t.words + w];
      const Keys key = column ? sub.columns : sub.rows;
      const uint32_t base = uint32_t(index) * kColumnStride;
      const float u = uniform24(hash(base + kRoundingDraw * kRowStride, key.k0, key.k1));
      const uint32_t p16 = probability16(column ? sub.scale_x : sub.scale_d, value, u);
      n += uint32_t(__popc(train_word(p16, base, key, sub.slots)));
    }
    const bool negative = (as_bits(value) & kSign) != 0;
    const int64_t o = column ? s * lines + index : index * f.count + s;
    const int64_t next = lines * f.count;
    float* out = (column ? f.columns : f.rows) + o;
    LineFactors<float> v = {0.0f, 0.0f};
    if (bl) {
      const float set = to_float(n), slots = float(bl);
      v = column ? line_factors(set, slots) : row_factors(set, slots);
    }
    // Products are positive upward: the row carries the sign of -d.
    const bool minus = column ? negative : !negative;
    out[0] = minus ? -v.count : v.count;
    out[next] = v.count;
    out[2 * next] = minus ? -v.spread : v.spread;
    out[3 * next] = v.spread;
  }
}

}  // namespace

cudaError_t launch_moments_begin(const Call& c) {
  PL_TRY(launch_plan(c));
  const Task& t = c.tasks[0];
  if (!t.args.fired || t.padded_cols + t.padded_rows == 0) return cudaSuccess;
  for (int slice = 0; slice < t.slices; ++slice) {
    PL_TRY(launch_trains(c, slice));
    PL_TRY(launch_count(c, slice));
  }
  return cudaSuccess;
}

cudaError_t launch_factors(const Call& c, const Factors& f) {
  const UpdateArgs& a = c.tasks[0].args;
  const dim3 grid(unsigned(ceil_div(a.cols + a.rows, kThreads)), unsigned(f.count));
  return launch(factors_kernel, grid, kThreads, 0, c.stream, tasks_of(c), f);
}

}  // namespace pulseline::cuda
