// Fidelity grouped: up and down counts of a group, then one relaxation step. A warp holds 16 rows
// of 8 TILES columns; the slots of a step, four packed words of 32, are counted by one tensor core
// instruction per direction and 8 columns: its 256 bits are the positive and the negative slots of
// the words, rows against columns with the signs crossed (up) or not (down). Lane (g, t) = (lane /
// 4, lane % 4) holds rows g and g + 8, columns 8 n + 2 t and + 1: the layout of the sums. Where the
// instruction is missing (sm_100 and later) a lane counts its own crosspoints by popcount.
#include "cuda/mma_block.h"

namespace pulseline::cuda {
namespace {

template <int TILES>
using GroupedBlock = TilePlace<2, 2, TILES>;
constexpr int kBlockRows = GroupedBlock<4>::kRows, kThreads = GroupedBlock<4>::kThreads;
constexpr int kBlocks = 2;  // of a multiprocessor
constexpr int kStageSteps = 4, kStageWords = kStageSteps * kStepWords;
constexpr int kRowPart = 2 * kBlockRows;  // of a packed word, both signs of every line

template <int TILES>
struct alignas(16) GroupedStage {
  static constexpr int kColumnPart = 2 * GroupedBlock<TILES>::kColumns;
  // Words t = 0..3 of the lines of g = 0..7 lie in different banks, 16 bytes of a row or 8 of a
  // column at a time.
  static constexpr int kPitch = kRowPart + kColumnPart + 8;
  static_assert(kPitch % 32 == 8 && kPitch % 4 == 0, "no bank conflicts, 16-byte rows");
  uint32_t words[kStageWords][kPitch];  // in the order of packed_place: rows, then columns
  Step steps[kStageSteps];
};
static_assert(2 * sizeof(GroupedStage<4>) <= kStaticShared, "two stages fit");

template <int TILES>
struct GroupedPlace : GroupedBlock<TILES> {
  int row_part, column_part;       // of its warp in a packed word
  uint32_t row_word, column_word;  // of this lane's part of a fragment in a step
  PL_DEVICE GroupedPlace()
      : row_part(2 * this->warp_row),
        column_part(kRowPart + 2 * this->warp_column),
        row_word(opaque(uint32_t(this->t * GroupedStage<TILES>::kPitch + row_part + 4 * this->g))),
        column_word(
            opaque(uint32_t(this->t * GroupedStage<TILES>::kPitch + column_part + 2 * this->g))) {}
};

// Steps of a slice to shared memory: one thread's part.
template <int TILES>
struct GroupedFeed {
  LineStream<kThreads, kStageWords, kRowPart, GroupedStage<TILES>::kPitch> rows;
  LineStream<kThreads, kStageWords, GroupedStage<TILES>::kColumnPart, GroupedStage<TILES>::kPitch>
      columns;
  const Step* steps;
  SharedAddress to;
  int left;  // steps that have not been asked for
  PL_DEVICE GroupedFeed(const Task& t, int slice, int count, GroupedStage<TILES>* stages)
      : rows(stages->words, t.row_words + int64_t(blockIdx.y) * kRowPart, 2 * t.padded_rows),
        columns(stages->words[0] + kRowPart,
                t.column_words + int64_t(blockIdx.x) * GroupedStage<TILES>::kColumnPart,
                2 * t.padded_cols),
        steps(t.steps + t.slice_step[slice] + threadIdx.x),
        to(shared_address(stages->steps) + uint32_t(threadIdx.x * sizeof(Step))),
        left(count) {}
  PL_DEVICE void next(const Task& t, int stage) {
    const uint32_t offset = uint32_t(stage) * uint32_t(sizeof(GroupedStage<TILES>));
    rows.next(offset, 2 * t.padded_rows, left * kStepWords);
    columns.next(offset, 2 * t.padded_cols, left * kStepWords);
    if (int(threadIdx.x) < kStageSteps && int(threadIdx.x) < left) copy16_async(to + offset, steps);
    steps += kStageSteps;
    left -= kStageSteps;
    copies_commit();
  }
};

// Up and down coincidences since the last relaxation.
template <int TILES>
struct GroupCounts {
  uint32_t up[TILES][4], down[TILES][4];
  PL_DEVICE void clear() {
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) up[n][i] = down[n][i] = 0;
  }
  PL_DEVICE uint32_t all() const {  // no count has a bit that is not in here
    uint32_t bits = 0;
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) bits |= up[n][i] | down[n][i];
    return bits;
  }
#if PL_NATIVE_BIT_MMA
  PL_DEVICE void add(const GroupedStage<TILES>& stage, int step, const GroupedPlace<TILES>& at) {
    const uint32_t* words = stage.words[step * kStepWords];
    const uint4 row = *reinterpret_cast<const uint4*>(words + at.row_word);
    const uint32_t rows[4] = {row.x, row.y, row.z, row.w};
    const uint32_t crossed[4] = {row.z, row.w, row.x, row.y};
#pragma unroll
    for (int n = 0; n < TILES; ++n) {
      const uint2 column = *reinterpret_cast<const uint2*>(words + at.column_word + 16 * n);
      bit_mma(up[n], crossed, column.x, column.y);
      bit_mma(down[n], rows, column.x, column.y);
    }
  }
#else
  PL_DEVICE void add(const GroupedStage<TILES>& stage, int step, const GroupedPlace<TILES>& at) {
#pragma unroll 1
    for (int t = 0; t < kStepWords; ++t) {
      const uint32_t* word = stage.words[step * kStepWords + t];
      const uint4 row = *reinterpret_cast<const uint4*>(word + at.row_part + 4 * at.g);
#pragma unroll
      for (int n = 0; n < TILES; ++n) {
        const uint4 column =
            *reinterpret_cast<const uint4*>(word + at.column_part + 16 * n + 4 * at.t);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint32_t rp = i < 2 ? row.x : row.y, rn = i < 2 ? row.z : row.w;
          const uint32_t cp = i % 2 ? column.z : column.x, cn = i % 2 ? column.w : column.y;
          up[n][i] += uint32_t(__popc((rp & cn) | (rn & cp)));
          down[n][i] += uint32_t(__popc((rp & cp) | (rn & cn)));
        }
      }
    }
  }
#endif
};

// Low-rank noise of this lane's crosspoints: factors of the group at hand. Those of the next one
// are on their way once the last have been used.
template <int TILES>
struct Ranks {
  const uint32_t *rows, *columns;  // of step 0
  uint32_t row_stride, column_stride;
  uint32_t row[2], column[TILES];
  int step, count;  // step that the next group begins with; steps of the slice
  PL_DEVICE Ranks(const Task& t, const GroupedPlace<TILES>& at, int steps)
      : rows(t.rank_rows + int64_t(at.row) * kRankWords + at.t),
        columns(t.rank_columns + int64_t(at.column - 2 * at.t + at.g) * kRankWords + at.t),
        row_stride(uint32_t(t.padded_rows) * kRankWords),
        column_stride(uint32_t(t.padded_cols) * kRankWords),
        step(0),
        count(steps) {
    next();
  }
  PL_DEVICE void next() {
    if (step >= count) return;
    const uint32_t* r = rows + uint64_t(step) * row_stride;
    const uint32_t* c = columns + uint64_t(step) * column_stride;
    row[0] = r[0];
    row[1] = r[8 * kRankWords];
#pragma unroll
    for (int n = 0; n < TILES; ++n) column[n] = c[8 * n * kRankWords];
  }
  PL_DEVICE void draw(int n, float (&xi)[4]) {
    bf16_mma(xi, row[0], row[1], column[n]);
    if (n == TILES - 1) next();
  }
  PL_DEVICE void relax_after(const Step&, int following) { step = following; }
  PL_DEVICE void skip() { next(); }
};

// Or a hash for each of them.
template <int TILES>
struct Hashes {
  uint32_t base;
  Keys key;
  PL_DEVICE explicit Hashes(const GroupedPlace<TILES>& at) : base(at.hash_base()), key() {}
  PL_DEVICE void draw(int n, float (&xi)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      xi[i] = group_normal(base + GroupedBlock<TILES>::hash_offset(n, i), key);
  }
  PL_DEVICE void relax_after(const Step& last, int) { key = last.noise; }
  PL_DEVICE void skip() {}
};

template <class D>
struct GroupedCells : TileCells<D, kTilesOf<D>> {
  using Base = TileCells<D, kTilesOf<D>>;
  using Base::c, Base::w, Base::TILES;
  float reach;  // |B| of one pulse each way, at most
  PL_DEVICE GroupedCells(const UpdateArgs& a, const D& device, const GroupedPlace<Base::TILES>& at)
      : Base(a, device, at), reach(0.0f) {
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        to_flow<D>(c[n][i]);
        if (D::kAffine && D::kSlopes)
          reach = max(reach, absolute(c[n][i].slope_up) + absolute(c[n][i].slope_down));
      }
  }
  template <bool NEAR, bool ADDITIVE, class Noise>
  PL_DEVICE void relax_each(const D& device, const GroupCounts<TILES>& g, Noise& noise,
                            float sigma) {
#pragma unroll
    for (int n = 0; n < TILES; ++n) {
      float xi[4];
      noise.draw(n, xi);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const Counts<float> counts = {to_float(g.up[n][i]), to_float(g.down[n][i]), 0.0f, 0.0f};
        w[n][i] = relax<false, NEAR>(device, squared_here<ADDITIVE, D>(c[n][i]), w[n][i], counts,
                                     sigma, xi[i], ADDITIVE);
      }
    }
  }
  // The usual case, all of the warp's slopes small, goes straight through.
  template <class Noise>
  PL_DEVICE void relax_all(const D& device, const GroupCounts<TILES>& g, Noise& noise, float sigma,
                           bool additive) {
    const uint32_t all = g.all();
    if (!__any_sync(0xffffffffu, int(all))) return noise.skip();
    if (D::kAdditive && additive)
      relax_each<false, D::kAdditive>(device, g, noise, sigma);
    else if (!D::kAffine || __any_sync(0xffffffffu, int(to_float(all) * reach > 0.49f)))
      relax_each<false, false>(device, g, noise, sigma);
    else
      relax_each<D::kAffine, false>(device, g, noise, sigma);
  }
};

// All steps of a slice, in order.
template <class D, class Noise>
PL_DEVICE void grouped_slice(const Task& t, const D& device, int slice, int count,
                             const GroupedPlace<kTilesOf<D>>& at, GroupedCells<D>& cells,
                             Noise noise, float sigma, GroupedStage<kTilesOf<D>>* stages) {
  constexpr int TILES = kTilesOf<D>;
  const bool additive = device.additive_noise();
  GroupCounts<TILES> counts;
  counts.clear();
  const auto take = [&](int number, int begin, int n) {
    const GroupedStage<TILES>& stage = stages[number];
    for (int s = 0; s < n; ++s) {
      counts.add(stage, s, at);
      if (!stage.steps[s].relax) continue;
      noise.relax_after(stage.steps[s], begin + s + 1);
      cells.relax_all(device, counts, noise, sigma, additive);
      counts.clear();
    }
  };
  for_stages<kStageSteps>(t, GroupedFeed<TILES>(t, slice, count, stages), count, take);
}

template <class D>
__global__ void __launch_bounds__(kThreads, kBlocks)
    grouped_kernel(const __grid_constant__ DeviceTasks<D> tasks, int slice) {
  constexpr int TILES = kTilesOf<D>;
  PL_SHARED(GroupedStage<TILES>, stages, 2);
  const Task& t = tasks.task[blockIdx.z];
  const D& device = tasks.device[blockIdx.z];
  if (GroupedBlock<TILES>::outside(t.args) || slice >= t.slices || still(t)) return;
  const GroupedPlace<TILES> at;
  GroupedCells<D> cells(t.args, device, at);
  const int count = t.slice_step[slice + 1] - t.slice_step[slice];
  const float sigma = device.p.pulsed.dw_min_std;
  if (t.rank_rows)
    grouped_slice(t, device, slice, count, at, cells, Ranks<TILES>(t, at, count), sigma * kRankUnit,
                  stages);
  else
    grouped_slice(t, device, slice, count, at, cells, Hashes<TILES>(at), sigma, stages);
  cells.store(t.args, at);
}

template <class D>
struct Grouped {
  static cudaError_t run(const Call& c, int slice) {
    return launch(grouped_kernel<D>, GroupedBlock<kTilesOf<D>>::grid(c), kThreads, 0, c.stream,
                  device_tasks_of<D>(c), slice);
  }
};

}  // namespace

cudaError_t launch_grouped(const Call& c, int slice) { return launch_of<Grouped>(c, slice); }

}  // namespace pulseline::cuda
