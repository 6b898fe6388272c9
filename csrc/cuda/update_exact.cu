// Fidelity exact: coincidences of every train word by popcount, one step each, in order; weights
// and device parameters stay in registers for a slice. See words.h for who holds what.
#include "cuda/words.h"

namespace pulseline::cuda {
namespace {

template <bool ADDITIVE, class D>
PL_DEVICE void pulse_row(const D& device, LaneCells<D>& cells, int r, const Words& words,
                         const float (&xi)[2], const Roots& roots, uint32_t sign) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const uint32_t n = uint32_t(__popc(words.row[r] & words.column[h] & ~kSign));
    const bool up = ((words.row[r] ^ words.column[h]) & sign) != 0;
    cells.w[r][h] =
        pulse(device, cells.c[r][h], cells.w[r][h], up, to_float(n), roots.of(n), xi[h], ADDITIVE);
  }
}

template <bool ADDITIVE, class D, class Tap>
PL_DEVICE void exact_words(const Task& t, const D& device, int slice, const LanePlace& at,
                           LaneCells<D>& cells, Chunk* chunks, Tap& tap) {
  const Roots roots(device.p.pulsed.dw_min_std);
  const CycleNoise noise;
  const uint32_t sign = opaque(kSign);  // one instruction tests a mask that stands in a register
  uint32_t base[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) base[r] = noise_base(at.row + r, at.column);
  const auto take_row = [&](int r, const Words& words, Keys key) {
    float xi[2];
    noise.draw(base[r], key, xi);
    pulse_row<ADDITIVE>(device, cells, r, words, xi, roots, sign);
  };
  for_words(t, slice, at, chunks, [&](const Words& words, Keys key, int s) {
    tap.before(s, cells, at);
    if (__popc(words.firing) > kRows / 2) {  // straight through: rows overlap in the pipeline
#pragma unroll
      for (int r = 0; r < kRows; ++r) take_row(r, words, key);
    } else {
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        if (words.firing >> r & 1u) take_row(r, words, key);
    }
  });
}

template <class D, class Tap>
PL_DEVICE void exact_slice(const Task& t, const D& device, int slice, const LanePlace& at,
                           LaneCells<D>& cells, Chunk* chunks, Tap& tap) {
  if (D::kAdditive && device.additive_noise())
    exact_words<D::kAdditive>(t, device, slice, at, cells, chunks, tap);
  else
    exact_words<false>(t, device, slice, at, cells, chunks, tap);
}

// Blocks per multiprocessor. 3 leave 168 registers: too few for curved steps and noise scales of
// their own.
template <class D>
constexpr int blocks_of() {
  return D::kAffine && !D::kOwnNoise ? 3 : 2;
}

template <class D>
__global__ void __launch_bounds__(kBlockThreads, blocks_of<D>())
    exact_kernel(const __grid_constant__ DeviceTasks<D> tasks, int slice) {
  PL_SHARED(Chunk, chunks, 2);
  const Task& t = tasks.task[blockIdx.z];
  const D& device = tasks.device[blockIdx.z];
  const LanePlace at;
  if (at.outside(t.args) || slice >= t.slices || still(t)) return;
  LaneCells<D> cells(t.args, device, at);
  Untapped tap;
  exact_slice(t, device, slice, at, cells, chunks, tap);
  cells.store(t.args, at);
}

template <class D>
__global__ void __launch_bounds__(kBlockThreads, blocks_of<D>())
    exact_tapped_kernel(const __grid_constant__ TappedTask<D> one, int slice) {
  PL_SHARED(Chunk, chunks, 2);
  const Task& t = one.task;
  const LanePlace at;
  if (at.outside(t.args)) return;
  LaneCells<D> cells(t.args, one.device, at);
  LaneTaps<D> tap(one, t.words, slice * t.slice_samples, at.warp_column());
  const bool moves = !still(t);
  if (moves) exact_slice(t, one.device, slice, at, cells, chunks, tap);
  tap.end(cells, at);
  if (moves) cells.store(t.args, at);
}

template <class D>
struct Exact {
  static cudaError_t run(const Call& c, int slice) {
    TappedTask<D> one;
    if (taps_of_slice(c, slice, one))
      return launch(exact_tapped_kernel<D>, block_grid(c), kBlockThreads, 0, c.stream, one, slice);
    return launch(exact_kernel<D>, block_grid(c), kBlockThreads, 0, c.stream, device_tasks_of<D>(c),
                  slice);
  }
};

}  // namespace

cudaError_t launch_exact(const Call& c, int slice) { return launch_of<Exact>(c, slice); }

}  // namespace pulseline::cuda
