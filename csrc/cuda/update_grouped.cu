// Fidelity grouped: up and down counts of a group, then one relaxation step. A warp holds 16 rows
// of 32 columns; the slots of a step, at most four packed words of 32, are
// counted by one tensor core instruction per direction and 8 columns: its 256 bits are the positive
// and the negative slots of four words, rows against columns with the signs crossed (up) or not
// (down). Lane (g, t) = (lane / 4, lane % 4) holds rows g and g + 8, columns 8 n + 2 t and + 1: the
// layout of the sums. Where the instruction is missing (sm_100 and later) a lane counts its own
// crosspoints by popcount.
#include "cuda/update_device.h"

namespace pulseline::cuda {
namespace {

constexpr int kTiles = 4;  // of 8 columns
constexpr int kWarpRows = 2, kWarpColumns = 2;
constexpr int kBlockRows = 16 * kWarpRows, kBlockColumns = 8 * kTiles * kWarpColumns;
constexpr int kThreads = 32 * kWarpRows * kWarpColumns;
constexpr int kBlocks = 2;  // of a multiprocessor
// Lines of a word: stride so that the words t = 0..3 of lines g = 0..7 lie in 32 different banks.
constexpr int kLines = kBlockRows + kBlockColumns + 4;
static_assert(2 * kLines % 32 == 8 && kLines % 4 == 0, "no bank conflicts, 16-byte rows");
static_assert(kPadColumns % kBlockColumns == 0 && kPadRows % kBlockRows == 0, "whole blocks");

struct alignas(16) Stage {
  uint32_t lines[kStageWords][2][kLines];  // [word][positive, negative][rows, then columns]
};
static_assert(2 * sizeof(Stage) <= kStaticShared, "two stages fit");

struct Place {
  int row, column;            // of this lane's first crosspoint
  int row_line, column_line;  // of its warp in a stage
  int g, t;
  PL_DEVICE Place() {
    const int warp = int(threadIdx.x / 32), lane = int(threadIdx.x % 32);
    g = lane / 4;
    t = lane % 4;
    row_line = warp / kWarpColumns * 16;
    column_line = kBlockRows + warp % kWarpColumns * (8 * kTiles);
    row = int(blockIdx.y) * kBlockRows + row_line + g;
    column = int(blockIdx.x) * kBlockColumns + column_line - kBlockRows + 2 * t;
  }
  PL_DEVICE int row_of(int i) const { return row + i / 2 * 8; }
  PL_DEVICE int column_of(int n, int i) const { return column + 8 * n + i % 2; }
};

// Words first.. of the slice, as many as there are, to a stage.
PL_DEVICE void fetch(const Task& t, int64_t first, int64_t count, Stage& stage) {
  const int n = first >= count ? 0 : count - first < kStageWords ? int(count - first) : kStageWords;
  constexpr int kRowQuads = kBlockRows / 4, kQuads = kRowQuads + kBlockColumns / 4;
  for (int i = int(threadIdx.x); i < 2 * n * kQuads; i += kThreads) {
    const int line = i / kQuads, q = i % kQuads * 4;
    const int64_t word = 2 * first + line;
    const uint32_t* from =
        q < kBlockRows ? t.row_words + word * t.padded_rows + int64_t(blockIdx.y) * kBlockRows + q
                       : t.column_words + word * t.padded_cols +
                             int64_t(blockIdx.x) * kBlockColumns + q - kBlockRows;
    copy16_async(&stage.lines[line / 2][line % 2][q], from);
  }
  copies_commit();
}

// Up and down coincidences since the last relaxation.
struct GroupCounts {
  uint32_t up[kTiles][4], down[kTiles][4];
  PL_DEVICE void clear() {
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) up[n][i] = down[n][i] = 0;
  }
  PL_DEVICE bool any() const {  // in this warp
    uint32_t all = 0;
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) all |= up[n][i] | down[n][i];
    return __any_sync(0xffffffffu, int(all)) != 0;
  }
#if PL_NATIVE_BIT_MMA
  PL_DEVICE void add(const Stage& stage, int word, int count, const Place& at) {
    // A lane beyond the step's words takes some other word for its columns and 0 for its rows.
    const int w = at.t < count ? word + at.t : word;
    const uint32_t mask = at.t < count ? 0xffffffffu : 0u;
    const uint32_t *positive = stage.lines[w][0] + at.g, *negative = stage.lines[w][1] + at.g;
    const uint32_t rows[4] = {positive[at.row_line] & mask, positive[at.row_line + 8] & mask,
                              negative[at.row_line] & mask, negative[at.row_line + 8] & mask};
    const uint32_t crossed[4] = {rows[2], rows[3], rows[0], rows[1]};
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const uint32_t p = positive[at.column_line + 8 * n], m = negative[at.column_line + 8 * n];
      bit_mma(up[n], crossed, p, m);
      bit_mma(down[n], rows, p, m);
    }
  }
#else
  PL_DEVICE void add(const Stage& stage, int word, int count, const Place& at) {
    for (int w = word; w < word + count; ++w) {
      const uint32_t *positive = stage.lines[w][0], *negative = stage.lines[w][1];
#pragma unroll
      for (int n = 0; n < kTiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = at.row_line + at.g + i / 2 * 8;
          const int column = at.column_line + 8 * n + 2 * at.t + i % 2;
          const uint32_t rp = positive[row], rn = negative[row];
          const uint32_t cp = positive[column], cn = negative[column];
          up[n][i] += uint32_t(__popc((rp & cn) | (rn & cp)));
          down[n][i] += uint32_t(__popc((rp & cp) | (rn & cn)));
        }
    }
  }
#endif
};

// Low-rank noise of this lane's crosspoints, factors of word `word` of the slice.
PL_DEVICE void rank_sums(const Task& t, const Place& at, int64_t word, float (&xi)[kTiles][4]) {
  const int64_t row = at.row, column = at.column - 2 * at.t + at.g;
  const uint32_t* rows = t.rank_rows + (word * t.padded_rows + row) * kRankWords + at.t;
  const uint32_t* columns = t.rank_columns + (word * t.padded_cols + column) * kRankWords + at.t;
  const uint32_t a0 = rows[0], a1 = rows[8 * kRankWords];
#pragma unroll
  for (int n = 0; n < kTiles; ++n) bf16_mma(xi[n], a0, a1, columns[8 * n * kRankWords]);
}

// Gaussians of this lane's crosspoints for one group.
PL_DEVICE void draw_noise(const Task& t, const Place& at, const Step& step, bool noisy,
                          float (&xi)[kTiles][4]) {
  if (t.rank_rows) return rank_sums(t, at, step.word, xi);
  const uint32_t base = uint32_t(at.row) * kRowStride + uint32_t(at.column) * kColumnStride;
#pragma unroll
  for (int n = 0; n < kTiles; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) xi[n][i] = 0.0f;
  if (!noisy) return;
#pragma unroll
  for (int n = 0; n < kTiles; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t further =
          uint32_t(i / 2 * 8) * kRowStride + uint32_t(8 * n + i % 2) * kColumnStride;
      xi[n][i] = group_normal(base + further, step.noise);
    }
}

template <class D>
struct Cells {
  float w[kTiles][4];
  Crosspoint<float> c[kTiles][4];
  PL_DEVICE Cells(const UpdateArgs& a, const D& device, const Place& at) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        c[n][i] = load_crosspoint(a, device, at.row_of(i), at.column_of(n, i), w[n][i]);
  }
  static PL_DEVICE Counts<float> counts_of(const GroupCounts& g, int n, int i) {
    return {to_float(g.up[n][i]), to_float(g.down[n][i]), 0.0f, 0.0f};
  }
  template <bool NEAR, bool ADDITIVE>
  PL_DEVICE void relax_each(const D& device, const GroupCounts& g, const float (&xi)[kTiles][4],
                            float sigma) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        w[n][i] = relax<false, NEAR>(device, c[n][i], w[n][i], counts_of(g, n, i), sigma, xi[n][i],
                                     ADDITIVE);
  }
  // The usual case, all of the warp's slopes small, goes straight through.
  PL_DEVICE void relax_all(const D& device, const GroupCounts& g, const float (&xi)[kTiles][4],
                           float sigma, bool additive) {
    bool far = !D::kAffine;
    if (D::kAffine && D::kSlopes) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) far |= 0.5f < slope_magnitude(c[n][i], counts_of(g, n, i));
    }
    if (D::kAdditive && additive)
      relax_each<false, D::kAdditive>(device, g, xi, sigma);
    else if (!D::kAffine || __any_sync(0xffffffffu, int(far)))
      relax_each<false, false>(device, g, xi, sigma);
    else
      relax_each<D::kAffine, false>(device, g, xi, sigma);
  }
  PL_DEVICE void store(const UpdateArgs& a, const Place& at) const {
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) store_weight(a, at.row_of(i), at.column_of(n, i), w[n][i]);
  }
};

template <class D>
__global__ void __launch_bounds__(kThreads, kBlocks)
    grouped_kernel(const __grid_constant__ DeviceTasks<D> tasks, int slice) {
  PL_SHARED(Stage, stages, 2);
  const Task& t = tasks.task[blockIdx.z];
  const D& device = tasks.device[blockIdx.z];
  if (int64_t(blockIdx.y) * kBlockRows >= t.args.rows ||
      int64_t(blockIdx.x) * kBlockColumns >= t.args.cols || slice >= t.slices || refused(t))
    return;
  const int count = t.slice_word[slice + 1] - t.slice_word[slice];
  if (count == 0) return;
  const Place at;
  Cells<D> cells(t.args, device, at);
  const float sigma = device.p.pulsed.dw_min_std * (t.rank_rows ? kRankUnit : 1.0f);
  const bool noisy = sigma != 0.0f, additive = device.additive_noise();
  int first = 0;  // word that the stage in use begins with
  const auto await_stage = [&] {
    fetch(t, first + kStageWords, count, stages[(first / kStageWords + 1) % 2]);
    copies_wait<1>();
    __syncthreads();
  };
  fetch(t, 0, count, stages[0]);
  await_stage();
  const int32_t last = t.slice_step[slice + 1];
  for (int32_t next = t.slice_step[slice]; next < last;) {
    GroupCounts counts;
    counts.clear();
    Step step;
    do {
      step = t.steps[next++];
      if (step.word >= first + kStageWords) {
        __syncthreads();  // nobody reads the old stage any more
        first += kStageWords;
        await_stage();
      }
      counts.add(stages[first / kStageWords % 2], step.word - first, step.count, at);
    } while (!step.relax);
    if (!counts.any()) continue;
    float xi[kTiles][4];
    draw_noise(t, at, step, noisy, xi);
    cells.relax_all(device, counts, xi, sigma, additive);
  }
  copies_wait<0>();
  cells.store(t.args, at);
}

template <class D>
struct Grouped {
  static cudaError_t run(const Call& c, int slice) {
    return launch(grouped_kernel<D>, block_grid(c, kBlockRows, kBlockColumns), kThreads, 0,
                  c.stream, device_tasks_of<D>(c), slice);
  }
};

}  // namespace

cudaError_t launch_grouped(const Call& c, int slice) { return launch_of<Grouped>(c, slice); }

}  // namespace pulseline::cuda
