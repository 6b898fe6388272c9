// Counted pulses and converters of one-hot reads: see transfer.h.
#include "core/retention.h"
#include "cuda/cells.h"
#include "cuda/read_device.h"
#include "cuda/transfer.h"
#include "cuda/update_device.h"

namespace pulseline::cuda {
namespace {

constexpr int kCells = kCellColumns * kCellRows;

// `size` pulses of one crosspoint; joined, or of strict one by one.
template <class D>
PL_DEVICE float pulse_counted(const CountedArgs& a, const D& device, const Crosspoint<float>& c,
                              float w, float n, uint32_t row, uint32_t column, uint64_t k) {
  const bool strict = a.fidelity == kStrict, noisy = a.fidelity != kExpected;
  const int each = strict ? 1 : kSlotsPerWord, size = int(absolute(n));
  const float sigma = noisy ? device.p.pulsed.dw_min_std : 0.0f;
  for (int first = 0, word = 0, slot = 0; first < size; first += each) {
    const int pulses = size - first < each ? size - first : each;
    const uint32_t draw = strict ? uint32_t(word) << 5 | uint32_t(slot) : uint32_t(word);
    float xi = 0.0f;
    if (noisy) xi = cycle_normal(row, column, draw_keys(a.stream, kCountedPulses, k, draw));
    const float root = square_root(float(pulses)) * sigma;
    w = pulse(device, c, w, n > 0.0f, float(pulses), root, xi, device.additive_noise());
    if (!strict || ++slot == kSlotsPerWord) {
      slot = 0;
      ++word;
    }
  }
  return w + 0.0f;
}

template <class D>
__global__ void __launch_bounds__(kCells)
    counted_kernel(const __grid_constant__ D device, const __grid_constant__ CountedArgs a) {
  UpdateArgs cells = {};
  cells.w = a.w;
  cells.step = a.step;
  cells.slope = a.slope;
  cells.bound = a.bound;
  cells.rows = a.rows;
  cells.cols = a.cols;
  for_cells(a.rows, a.lines, [&](uint32_t i, uint32_t t, int64_t o) {
    const float n = a.counts[o];
    if (n == 0.0f) return;
    const uint32_t j = uint32_t(a.columns[t]);
    const int64_t place = int64_t(i) * a.cols + j;
    float w;
    const Crosspoint<float> c = load_crosspoint(cells, device, i, j, w);
    const uint64_t k = a.k + t;
    if (w == w) a.w[place] = w = pulse_counted(a, device, c, w, n, i, j, k);
    if (!a.visible || is_stuck(a.step[place])) return;
    const Keys key = draw_keys(a.stream, kCountedPulses, k, kWritten);
    a.visible[place] = fma(a.deviation, retention_normal(i, j, key), w);
  });
}

__global__ void __launch_bounds__(kCells)
    counted_ideal_kernel(const __grid_constant__ CountedArgs a, float granularity) {
  for_cells(a.rows, a.lines, [&](uint32_t i, uint32_t t, int64_t o) {
    const float n = a.counts[o];
    float& w = a.w[int64_t(i) * a.cols + a.columns[t]];
    if (n != 0.0f) w = (w + n * granularity) + 0.0f;
  });
}

template <class D>
cudaError_t counted(const CountedArgs& a, const float* params, cudaStream_t stream) {
  D device;
  std::memcpy(static_cast<void*>(&device), params, sizeof(D));
  return launch(counted_kernel<D>, cell_grid(a.rows, a.lines), cell_block(), 0, stream, device, a);
}

template <int PASSES>
__global__ void __launch_bounds__(kCells) convert_kernel(const __grid_constant__ ReadJob j) {
  const ReadArgs& a = j.args;
  for_cells(a.rows, a.batch, [&](uint32_t i, uint32_t t, int64_t o) {
    const OutputLine own = output_line(a, j.chain, 0, i);
    const Line<float> line = {own.noise, own.bend};
    float sums[PASSES], variances[PASSES];
#pragma unroll
    for (int pass = 0; pass < PASSES; ++pass) {
      Keys driven = {0, 0};
      if (a.input_noise > 0.0f) driven = input_keys(a, t, kDrivenLine, pass, 0);
      const float q = input_pass(a, j.chain, 1.0f, pass, PASSES, 0u, driven);
      sums[pass] = a.w[o] * q;
      variances[pass] = j.chain.pcm ? absolute(a.w[o]) * (q * q) : q * q;
    }
    float level = 0.0f;
    a.y[o] = convert_output<PASSES, float>(j, line, i * kColumnStride, sums, variances,
                                           keys_of_outputs(j, t, 0, 0), level);
  });
}

}  // namespace

cudaError_t launch_counted(const CountedArgs& a, int device, const float* params,
                           cudaStream_t stream) {
  if (a.rows == 0 || a.lines == 0) return cudaSuccess;
  if (device < 0)
    return launch(counted_ideal_kernel, cell_grid(a.rows, a.lines), cell_block(), 0, stream, a,
                  params[0]);
#define PULSELINE_CASE(D) \
  if (device == k##D) return counted<D>(a, params, stream);
  PULSELINE_DEVICES(PULSELINE_CASE)
#undef PULSELINE_CASE
  return cudaErrorInvalidValue;
}

cudaError_t launch_convert(const ReadArgs& args, const Chain& chain, cudaStream_t stream) {
  if (args.rows == 0 || args.batch == 0) return cudaSuccess;
  ReadJob job = {};
  job.args = args;
  job.chain = chain;
  return launch(chain.passes == kOnePass ? convert_kernel<1> : convert_kernel<2>,
                cell_grid(args.rows, args.batch), cell_block(), 0, stream, job);
}

}  // namespace pulseline::cuda
