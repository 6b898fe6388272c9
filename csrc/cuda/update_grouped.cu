// Fidelity grouped: up and down counts of a group, then one relaxation step. A warp holds 16 rows
// of 16 columns (more spill registers); the slots of a step, at most four packed words of 32, are
// counted by one tensor core instruction per direction and 8 columns: its 256 bits are the positive
// and the negative slots of four words, rows against columns with the signs crossed (up) or not
// (down). Lane (g, t) = (lane / 4, lane % 4) holds rows g and g + 8, columns 8 n + 2 t and + 1: the
// layout of the sums. Where the instruction is missing (sm_100 and later) a lane counts its own
// crosspoints by popcount.
#include "cuda/update_device.h"

namespace pulseline::cuda {
namespace {

constexpr int kTiles = 2;  // of 8 columns
constexpr int kWarpRows = 2, kWarpColumns = 2;
constexpr int kBlockRows = 16 * kWarpRows, kBlockColumns = 8 * kTiles * kWarpColumns;
constexpr int kThreads = 32 * kWarpRows * kWarpColumns;
constexpr int kRowCells = 2, kColumnCells = 2 * kTiles;
// Lines of a word: stride so that the words t = 0..3 of lines g = 0..7 lie in 32 different banks.
constexpr int kLines = kBlockRows + kBlockColumns + 4;
static_assert(2 * kLines % 32 == 8 && kLines % 4 == 0, "no bank conflicts, 16-byte rows");
static_assert(kPadColumns % kBlockColumns == 0 && kPadRows % kBlockRows == 0, "whole blocks");

struct alignas(16) Stage {
  uint32_t lines[kStageWords][2][kLines];  // [word][positive, negative][rows, then columns]
};
static_assert(2 * sizeof(Stage) <= kStaticShared, "two stages fit");

struct Place {
  int64_t row, column;        // of this lane's first crosspoint
  int row_line, column_line;  // of its warp in a stage
  int g, t;
  PL_DEVICE Place() {
    const int warp = int(threadIdx.x / 32), lane = int(threadIdx.x % 32);
    g = lane / 4;
    t = lane % 4;
    row_line = warp / kWarpColumns * 16;
    column_line = kBlockRows + warp % kWarpColumns * (8 * kTiles);
    row = int64_t(blockIdx.y) * kBlockRows + row_line + g;
    column = int64_t(blockIdx.x) * kBlockColumns + column_line - kBlockRows + 2 * t;
  }
  PL_DEVICE int64_t row_of(int r) const { return row + 8 * r; }
  PL_DEVICE int64_t column_of(int c) const { return column + c / 2 * 8 + c % 2; }
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
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const uint32_t p = positive[at.column_line + 8 * n], m = negative[at.column_line + 8 * n];
      bit_mma(up[n], rows, m, p);
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

// Low-rank noise of this lane's crosspoints, by factors of word `word` of the slice.
struct RankNoise {
  uint32_t rows[2];
  const uint32_t* columns;
  PL_DEVICE RankNoise(const Task& t, const Place& at, int64_t word) {
    const int64_t row = at.row, column = at.column - 2 * at.t + at.g;
    const uint32_t* first = t.rank_rows + (word * t.padded_rows + row) * kRankWords + at.t;
    rows[0] = first[0];
    rows[1] = first[8 * kRankWords];
    columns = t.rank_columns + (word * t.padded_cols + column) * kRankWords + at.t;
  }
  PL_DEVICE void draw(int tile, float (&xi)[4]) const {
    bf16_mma(xi, rows[0], rows[1], columns[8 * tile * kRankWords]);
  }
};

template <class D>
struct Cells {
  float w[kRowCells][kColumnCells];
  Crosspoint<float> c[kRowCells][kColumnCells];
  PL_DEVICE Cells(const UpdateArgs& a, const D& device, const Place& at) {
#pragma unroll
    for (int r = 0; r < kRowCells; ++r)
#pragma unroll
      for (int j = 0; j < kColumnCells; ++j)
        c[r][j] = load_crosspoint(a, device, at.row_of(r), at.column_of(j), w[r][j]);
  }
  // draw(n, xi): noise of the lane's four crosspoints in tile n.
  template <class Draw>
  PL_DEVICE void relax_all(const D& device, const GroupCounts& n, float sigma, bool additive,
                           Draw draw) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      float xi[4];
      draw(tile, xi);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = i / 2, j = 2 * tile + i % 2;
        const Counts<float> counts = {to_float(n.up[tile][i]), to_float(n.down[tile][i]), 0.0f,
                                      0.0f};
        w[r][j] = relax<false>(device, c[r][j], w[r][j], counts, sigma, xi[i], additive);
      }
    }
  }
  PL_DEVICE void relax_iid(const D& device, const GroupCounts& n, const Place& at, Keys key,
                           float sigma, bool additive) {
    relax_all(device, n, sigma, additive, [&](int tile, float (&xi)[4]) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t base = uint32_t(at.row_of(i / 2)) * kRowStride +
                              uint32_t(at.column_of(2 * tile + i % 2)) * kColumnStride;
        xi[i] = sigma != 0.0f ? group_normal(base, key) : 0.0f;
      }
    });
  }
  PL_DEVICE void store(const UpdateArgs& a, const Place& at) const {
#pragma unroll
    for (int r = 0; r < kRowCells; ++r)
#pragma unroll
      for (int j = 0; j < kColumnCells; ++j)
        store_weight(a, at.row_of(r), at.column_of(j), w[r][j]);
  }
};

template <class D>
__global__ void __launch_bounds__(kThreads, 3)
    grouped_kernel(const __grid_constant__ DeviceTasks<D> tasks, int slice) {
  PL_SHARED(Stage, stages, 2);
  const Task& t = tasks.task[blockIdx.z];
  const D& device = tasks.device[blockIdx.z];
  if (int64_t(blockIdx.y) * kBlockRows >= t.args.rows ||
      int64_t(blockIdx.x) * kBlockColumns >= t.args.cols || slice >= t.slices || refused(t))
    return;
  const int64_t count = t.slice_word[slice + 1] - t.slice_word[slice];
  int32_t next = t.slice_step[slice];
  const int32_t last = t.slice_step[slice + 1];
  if (count == 0) return;
  const Place at;
  Cells<D> cells(t.args, device, at);
  const float sigma = device.p.pulsed.dw_min_std * (t.rank_rows ? kRankUnit : 1.0f);
  const bool additive = device.additive_noise();
  GroupCounts counts;
  counts.clear();
  fetch(t, 0, count, stages[0]);
  for (int64_t first = 0; first < count; first += kStageWords) {
    const int number = int(first / kStageWords) % 2;
    fetch(t, first + kStageWords, count, stages[1 - number]);
    copies_wait<1>();
    __syncthreads();
    for (; next < last; ++next) {
      const Step step = t.steps[next];
      if (step.word >= first + kStageWords) break;
      counts.add(stages[number], int(step.word - first), step.count, at);
      if (!step.relax) continue;
      if (counts.any()) {
        if (t.rank_rows) {
          const RankNoise noise(t, at, step.word);
          cells.relax_all(device, counts, sigma, additive,
                          [&](int tile, float (&xi)[4]) { noise.draw(tile, xi); });
        } else {
          cells.relax_iid(device, counts, at, step.noise, sigma, additive);
        }
      }
      counts.clear();
    }
    __syncthreads();
  }
  copies_wait<0>();
  cells.store(t.args, at);
}

template <class D>
cudaError_t run(const Call& c, int slice) {
  const int64_t rows = most(c, [](const Task& t) { return t.args.rows; });
  const int64_t cols = most(c, [](const Task& t) { return t.args.cols; });
  const dim3 grid(unsigned(ceil_div(cols, kBlockColumns)), unsigned(ceil_div(rows, kBlockRows)),
                  unsigned(c.count));
  return launch(grouped_kernel<D>, grid, kThreads, 0, c.stream, device_tasks_of<D>(c), slice);
}

}  // namespace

cudaError_t launch_grouped(const Call& c, int slice) {
#define PULSELINE_CASE(D) \
  if (c.device == k##D) return run<D>(c, slice);
  PULSELINE_DEVICES(PULSELINE_CASE)
#undef PULSELINE_CASE
  return cudaErrorInvalidValue;
}

}  // namespace pulseline::cuda
