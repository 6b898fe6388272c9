// The fidelities that are taken for their meaning, not for their speed:
//   strict    every pulse on its own, in slot order
//   expected  no trains: the expected update of the response functions
// One kernel per device model holds both, and one both with taps.
#include "cuda/words.h"

namespace pulseline::cuda {
namespace {

template <class D, class Tap>
PL_DEVICE void strict_slice(const Task& t, const D& device, int slice, const LanePlace& at,
                            LaneCells<D>& cells, Chunk* chunks, Tap& tap) {
  const CycleNoise noise;
  const float sigma = device.p.pulsed.dw_min_std;
  const bool additive = device.additive_noise();
  const Keys* slot_keys = t.slot_keys + first_word(t, slice) * kSlotsPerWord;
  for_words(t, slice, at, chunks, [&](const Words& words, Keys, int64_t s) {
    tap.before(s, cells, at);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const uint32_t base = noise_base(at.row + r, at.column);
      for (uint32_t slots = words.row[r] & ~kSign; slots; slots &= slots - 1) {
        const int slot = __ffs(int(slots)) - 1;
        float xi[2];
        noise.draw(base, slot_keys[s * kSlotsPerWord + slot], xi);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const bool up = ((words.row[r] ^ words.column[h]) & kSign) != 0;
          const float moved =
              pulse(device, cells.c[r][h], cells.w[r][h], up, 1.0f, sigma, xi[h], additive);
          if (words.column[h] >> slot & 1u) cells.w[r][h] = moved;
        }
      }
    }
  });
}

template <class D, class Tap>
PL_DEVICE void expected_batch(const Task& t, const D& device, const LanePlace& at,
                              LaneCells<D>& cells, Tap& tap) {
  const UpdateArgs& a = t.args;
  for (int64_t s = 0; s < a.batch; ++s) {
    tap.before(s, cells, at);
    const MeanPulses mean = mean_pulses(a.train, t.trains[s]);
    float x[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t column = at.column + 16 * h;
      x[h] = column < a.cols ? a.x[s * a.cols + column] : 0.0f;
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float d = at.row + r < a.rows ? a.d[s * a.rows + at.row + r] : 0.0f;
      if (d == 0.0f) continue;
      const float rate = finite(mean.rate * min(absolute(d), mean.most_d));
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const bool up = d > 0.0f ? x[h] < 0.0f : x[h] > 0.0f;
        const Crosspoint<float>& c = cells.c[r][h];
        float& w = cells.w[r][h];
        const float pulses = rate * min(absolute(x[h]), mean.most_x);
        w = clip(fma(pulses, device.step(c, w, up), w), c.hi, c.lo);
      }
    }
  }
}

template <class D>
__global__ void __launch_bounds__(kBlockThreads, 2)
    rare_kernel(const __grid_constant__ DeviceTasks<D> tasks, int slice) {
  PL_SHARED(Chunk, chunks, 2);
  const Task& t = tasks.task[blockIdx.z];
  const D& device = tasks.device[blockIdx.z];
  const bool strict = t.args.fidelity == kStrict;
  const LanePlace at;
  if (still(t) || at.outside(t.args) || (strict && slice >= t.slices)) return;
  LaneCells<D> cells(t.args, device, at);
  Untapped tap;
  if (strict)
    strict_slice(t, device, slice, at, cells, chunks, tap);
  else
    expected_batch(t, device, at, cells, tap);
  cells.store(t.args, at);
}

template <class D>
__global__ void __launch_bounds__(kBlockThreads, 2)
    rare_tapped_kernel(const __grid_constant__ TappedTask<D> one, int slice) {
  PL_SHARED(Chunk, chunks, 2);
  const Task& t = one.task;
  const bool strict = t.args.fidelity == kStrict;
  const LanePlace at;
  if (at.outside(t.args)) return;
  LaneCells<D> cells(t.args, one.device, at);
  // Of expected a sample is a word.
  LaneTaps<D> tap(one, strict ? t.words : 1, strict ? slice * t.slice_samples : 0,
                  at.warp_column());
  const bool moves = !still(t);
  if (moves && strict) strict_slice(t, one.device, slice, at, cells, chunks, tap);
  if (moves && !strict) expected_batch(t, one.device, at, cells, tap);
  tap.end(cells, at);
  if (moves) cells.store(t.args, at);
}

template <class D>
struct Rare {
  static cudaError_t run(const Call& c, int slice) {
    TappedTask<D> one;
    const Task& t = c.tasks[0];
    if (t.args.fidelity == kStrict ? taps_of_slice(c, slice, one)
                                   : taps_of(c, 0, t.args.batch, one))
      return launch(rare_tapped_kernel<D>, block_grid(c), kBlockThreads, 0, c.stream, one, slice);
    return launch(rare_kernel<D>, block_grid(c), kBlockThreads, 0, c.stream, device_tasks_of<D>(c),
                  slice);
  }
};

}  // namespace

cudaError_t launch_strict(const Call& c, int slice) { return launch_of<Rare>(c, slice); }
cudaError_t launch_expected(const Call& c) { return launch_of<Rare>(c, 0); }

}  // namespace pulseline::cuda
