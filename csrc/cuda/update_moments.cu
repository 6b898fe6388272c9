// Fidelity moments: mean and variance of the coincidences of up to 256 samples, given how many
// slots every line fired, as four products over samples on tensor cores, then one relaxation;
// weights, device parameters and sums stay in registers for a slice.
//   mean      sum s c_d c_x / bl                          signed and unsigned, s = -1 or 1
//   variance  sum s v_d v_x / (bl^2 (bl - 1)),  v = c (bl - c)
// Counts come as halves from update_trains.cu, which are exact up to 2048; everything else is
// worked out from them: two or three roundings to 11 bits make a factor, of 2^-11 each; sums are
// float32.
#include "cuda/mma_block.h"

namespace pulseline::cuda {
namespace {

constexpr int kStep = 32;               // samples of a stage
constexpr int kStepHalves = kStep / 2;  // words of a line in a stage

template <int TILES>
using MomentsBlock = TilePlace<4, 2, TILES>;
constexpr int kBlockRows = MomentsBlock<4>::kRows, kThreads = MomentsBlock<4>::kThreads;
constexpr int kStages = 4;  // three on their way, one in use
static_assert(kGroupSamples % kStep == 0, "whole groups");

template <int TILES>
struct alignas(16) MomentsStage {
  uint32_t rows[kBlockRows][kStepHalves], columns[MomentsBlock<TILES>::kColumns][kStepHalves];
  uint32_t factors[3][kStepHalves];
};
static_assert(kStages * sizeof(MomentsStage<4>) <= kStaticShared, "all stages fit");

template <int TILES>
struct MomentsPlace : MomentsBlock<TILES> {
  int row_line, column_line;  // of its fragments in a stage
  int word;                   // of a line: eight samples of a stage are a lane's
  PL_DEVICE MomentsPlace()
      : row_line(this->warp_row + this->g),
        column_line(this->warp_column + this->g),
        word(4 * this->t) {}
};

// Stages of a slice to shared memory: one thread's part, 16 bytes of a row, a column, a factor.
template <int TILES>
struct MomentsFeed {
  static constexpr int kQuads = kStepHalves / 4;
  static_assert(kThreads == kBlockRows * kQuads, "a quad of a row each");
  uint32_t row, column;  // words of a slice, fewer than 2^32
  SharedAddress to;      // of the row; the others lie behind it
  PL_DEVICE MomentsFeed(const Task& t, MomentsStage<TILES>* stages) {
    const int line = int(threadIdx.x) / kQuads, q = int(threadIdx.x) % kQuads * 4;
    const uint32_t width = uint32_t(t.moment_samples) / 2;
    row = (blockIdx.y * kBlockRows + line) * width + q;
    column = (blockIdx.x * MomentsBlock<TILES>::kColumns + line) * width + q;
    to = shared_address(&stages->rows[line][q]);
  }
  static PL_DEVICE const uint32_t* factor_of(const Task& t, int step) {
    const int line = int(threadIdx.x) / kQuads, q = int(threadIdx.x) % kQuads * 4;
    return t.moment_factors + line * (t.moment_samples / 2) + step * kStepHalves + q;
  }
  PL_DEVICE void next(const Task& t, int step, int count) {
    const uint32_t offset = uint32_t(step % kStages) * uint32_t(sizeof(MomentsStage<TILES>));
    if (step < count) {
      constexpr int kColumns = MomentsBlock<TILES>::kColumns;
      constexpr uint32_t kRowBytes = kBlockRows * kStepHalves * 4;
      constexpr uint32_t kColumnBytes = kColumns * kStepHalves * 4;
      copy16_async(to + offset, t.row_words + row);
      if (int(threadIdx.x) < kColumns * kQuads)
        copy16_async(to + offset + kRowBytes, t.column_words + column);
      if (int(threadIdx.x) < 3 * kQuads)
        copy16_async(to + offset + kRowBytes + kColumnBytes, factor_of(t, step));
    }
    row += kStepHalves;
    column += kStepHalves;
    copies_commit();
  }
};

// Halves of signed counts c: c (bl - c) of their magnitudes.
constexpr uint32_t kMagnitudes = 0x7fff7fffu;
PL_DEVICE uint32_t spread_of(uint32_t c, uint32_t bl) {
  const uint32_t size = c & kMagnitudes;
  return half_mul(size, half_sub(bl, size));
}
PL_DEVICE uint32_t with_sign_of(uint32_t c, uint32_t magnitude) {
  return magnitude | (c & ~kMagnitudes);
}

template <int TILES>
struct Sums {
  float total[TILES][4], balance[TILES][4], variance[TILES][4], variance_balance[TILES][4];
  PL_DEVICE void clear() {
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        total[n][i] = balance[n][i] = variance[n][i] = variance_balance[n][i] = 0.0f;
  }
  PL_DEVICE float largest() const {  // count
    float most = 0.0f;
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) most = max(most, total[n][i]);
    return most;
  }
  // Sums hold half of what counts_of of core/relax.h takes.
  PL_DEVICE Counts<float> of(int n, int i) const {
    constexpr float kUnscale = 1.0f / kVarianceScale;
    const float t = total[n][i], b = balance[n][i];
    const float v = variance[n][i], vb = variance_balance[n][i];
    return {max(t + b, 0.0f), max(t - b, 0.0f), max(v + vb, 0.0f) * kUnscale,
            max(v - vb, 0.0f) * kUnscale};
  }
  PL_DEVICE void add(const MomentsStage<TILES>& stage, const MomentsPlace<TILES>& at) {
    uint32_t rows[2][4], columns[TILES][4], scale[4];
    load16(rows[0], &stage.rows[at.row_line][at.word]);
    load16(rows[1], &stage.rows[at.row_line + 8][at.word]);
#pragma unroll
    for (int n = 0; n < TILES; ++n)
      load16(columns[n], &stage.columns[at.column_line + 8 * n][at.word]);
    load16(scale, &stage.factors[1][at.word]);
    add_means(rows, columns, scale);
    load16(scale, &stage.factors[2][at.word]);
    // A train of one slot leaves nothing uncertain.
    if (!__any_sync(0xffffffffu, int(scale[0] | scale[1] | scale[2] | scale[3]))) return;
    add_variances(rows, columns, stage, at.word);
  }
  // Two words of a line at a time make a product, any two, of both sides.
  PL_DEVICE void add_means(const uint32_t (&rows)[2][4], const uint32_t (&columns)[TILES][4],
                           const uint32_t (&scale)[4]) {
#pragma unroll
    for (int half = 0; half < 4; half += 2) {
      uint32_t mean[4], size[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        mean[i] = half_mul(rows[i % 2][half + i / 2], scale[half + i / 2]);
        size[i] = mean[i] & kMagnitudes;
      }
#pragma unroll
      for (int n = 0; n < TILES; ++n) {
        const uint32_t c0 = columns[n][half], c1 = columns[n][half + 1];
        f16_mma(balance[n], mean, c0, c1);
        f16_mma(total[n], size, c0 & kMagnitudes, c1 & kMagnitudes);
      }
    }
  }
  PL_DEVICE void add_variances(const uint32_t (&rows)[2][4], const uint32_t (&columns)[TILES][4],
                               const MomentsStage<TILES>& stage, int first) {
#pragma unroll
    for (int half = 0; half < 4; half += 2) {
      const auto factors_of = [&](int f) {
        return *reinterpret_cast<const uint2*>(&stage.factors[f][first + half]);
      };
      const uint2 bl = factors_of(0), scale = factors_of(2);
      uint32_t spread[4], size[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t c = rows[i % 2][half + i / 2];
        size[i] = half_mul(spread_of(c, i / 2 ? bl.y : bl.x), i / 2 ? scale.y : scale.x);
        spread[i] = with_sign_of(c, size[i]);
      }
#pragma unroll
      for (int n = 0; n < TILES; ++n) {
        const uint32_t c0 = columns[n][half], c1 = columns[n][half + 1];
        const uint32_t s0 = spread_of(c0, bl.x), s1 = spread_of(c1, bl.y);
        f16_mma(variance_balance[n], spread, with_sign_of(c0, s0), with_sign_of(c1, s1));
        f16_mma(variance[n], size, s0, s1);
      }
    }
  }
  static PL_DEVICE void load16(uint32_t (&to)[4], const uint32_t* from) {
    const uint4 v = *reinterpret_cast<const uint4*>(from);
    to[0] = v.x;
    to[1] = v.y;
    to[2] = v.z;
    to[3] = v.w;
  }
};

template <class D>
struct MomentsCells : TileCells<D, kTilesOf<D>> {
  using Base = TileCells<D, kTilesOf<D>>;
  using Base::c, Base::w, Base::TILES;
  uint32_t bound[TILES][4];  // pairs, for c's own would take registers that are short
  PL_DEVICE MomentsCells(const UpdateArgs& a, const D& device, const MomentsPlace<Base::TILES>& at)
      : Base(a, device, at) {
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        to_flow<D>(c[n][i]);
        bound[n][i] = as_bits(c[n][i].hi) | as_bits(c[n][i].lo) >> 16;
      }
  }
  PL_DEVICE float steepest() const {  // slope
    float most = as_float(here(0u));  // or it would be kept for later
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 0; D::kSlopes && i < 4; ++i)
        most = max(most, max(absolute(c[n][i].slope_up), absolute(c[n][i].slope_down)));
    return most;
  }
  template <bool NEAR, bool ADDITIVE>
  PL_DEVICE void relax_each(const D& device, const Sums<TILES>& sums, const MomentsPlace<TILES>& at,
                            Keys key) {
    const uint32_t base = at.hash_base();
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        Crosspoint<float> cell = squared_here<ADDITIVE, D>(c[n][i]);
        const uint32_t pair = here(bound[n][i]);
        cell.hi = pair_first(pair);
        cell.lo = pair_second(pair);
        w[n][i] =
            relax<true, NEAR>(device, cell, w[n][i], sums.of(n, i), device.p.pulsed.dw_min_std,
                              group_normal(base + at.hash_offset(n, i), key), ADDITIVE);
      }
  }
  // The usual case, all of the warp's slopes small, goes straight through.
  PL_DEVICE void relax_all(const D& device, const Sums<TILES>& sums, const MomentsPlace<TILES>& at,
                           Keys key) {
    if (D::kAdditive && device.additive_noise())
      relax_each<false, D::kAdditive>(device, sums, at, key);
    else if (!D::kAffine || __any_sync(0xffffffffu, int(sums.largest() * steepest() > 0.24f)))
      relax_each<false, false>(device, sums, at, key);
    else
      relax_each<D::kAffine, false>(device, sums, at, key);
  }
};

// Blocks of a multiprocessor, 0: the compiler's choice, which is short of registers otherwise.
template <class D>
constexpr int kBlocksOf = D::kSlopes ? 1 : 0;

template <class D>
__global__ void __launch_bounds__(kThreads, kBlocksOf<D>)
    moments_kernel(const __grid_constant__ DeviceTasks<D> tasks, int slice) {
  constexpr int TILES = kTilesOf<D>;
  PL_SHARED(MomentsStage<TILES>, stages, kStages);
  const Task& t = tasks.task[blockIdx.z];
  const D& device = tasks.device[blockIdx.z];
  const UpdateArgs& a = t.args;
  const int64_t first = int64_t(slice) * t.moment_samples;
  if (MomentsBlock<TILES>::outside(a) || first >= a.batch || still(t)) return;
  const MomentsPlace<TILES> at;
  MomentsCells<D> cells(a, device, at);
  const int64_t samples = a.batch - first < t.moment_samples ? a.batch - first : t.moment_samples;
  const int count = int((samples + kStep - 1) / kStep);
  MomentsFeed<TILES> feed(t, stages);
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) feed.next(t, stage, count);
  Sums<TILES> sums;
  sums.clear();
  for (int step = 0; step < count; ++step) {
    copies_wait<kStages - 2>();
    __syncthreads();  // the stage has come, and nobody reads the one before any more
    feed.next(t, step + kStages - 1, count);
    sums.add(stages[step % kStages], at);
    constexpr int kGroupSteps = int(kGroupSamples) / kStep;
    if ((step + 1) % kGroupSteps && step + 1 < count) continue;
    // The group's first sample.
    const uint64_t k = call_number(t) + uint64_t(slice) * uint32_t(t.moment_samples) +
                       uint32_t(step / kGroupSteps) * uint32_t(kGroupSamples);
    cells.relax_all(device, sums, at, draw_keys(a.stream, kGroupNoise, k, 0));
    sums.clear();
  }
  copies_wait<0>();
  cells.store(a, at);
}

template <class D>
struct Moments {
  static cudaError_t run(const Call& c, int slice) {
    return launch(moments_kernel<D>, MomentsBlock<kTilesOf<D>>::grid(c), kThreads, 0, c.stream,
                  device_tasks_of<D>(c), slice);
  }
};

}  // namespace

cudaError_t launch_moments(const Call& c) {
  const int64_t batch = most(c, [](const Task& t) { return t.args.batch; });
  for (int slice = 0; slice < int(ceil_div(batch, kMomentSamples)); ++slice) {
    PL_TRY(launch_counts(c, slice));
    PL_TRY(launch_of<Moments>(c, slice));
  }
  return cudaSuccess;
}

}  // namespace pulseline::cuda
