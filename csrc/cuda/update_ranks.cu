// Low-rank noise (core/rng.h): the factors of a slice, and fidelity exact with them. A warp holds
// 16 rows of 32 columns in the layout of tensor core sums: lane (g, t) = (lane / 4, lane % 4) has
// rows g and g + 8, columns 8 n + 2 t and + 1. One instruction makes the noise of four of its
// crosspoints from a word per line; coincidences are counted by popcount.
#include "cuda/mma_block.h"
#include "cuda/taps.h"

namespace pulseline::cuda {
namespace {

constexpr int kLineThreads = 256;

// ---- factors ----

struct Draw {
  bool wanted;
  uint64_t k;
  uint32_t draw;
};
// Draw n of a slice: train word n (exact) or step n (grouped; the first one of a group).
PL_DEVICE Draw draw_of(const Task& t, int slice, int64_t n) {
  const UpdateArgs& a = t.args;
  if (a.fidelity == kGrouped) {
    const Step* s = t.steps + t.slice_step[slice] + n;
    return {n == 0 || s[-1].relax != 0, call_number(t) + s->noise.k0, 0u};
  }
  const TrainWord s = t.train_words[first_word(t, slice) + n];
  return {s.slots != 0, call_number(t) + uint64_t(s.source), s.word};
}

__global__ void __launch_bounds__(kLineThreads)
    ranks_kernel(const __grid_constant__ Tasks tasks, int slice) {
  const Task& t = tasks.task[blockIdx.z];
  const int64_t i = int64_t(blockIdx.x) * kLineThreads + threadIdx.x;
  if (slice >= t.slices || i >= t.padded_cols + t.padded_rows || still(t)) return;
  const bool column = i < t.padded_cols;
  const int64_t index = column ? i : i - t.padded_cols;
  const int64_t padded = column ? t.padded_cols : t.padded_rows;
  uint32_t* out = column ? t.rank_columns : t.rank_rows;
  const bool grouped = t.args.fidelity == kGrouped;
  const int64_t count =
      grouped ? t.slice_step[slice + 1] - t.slice_step[slice] : words_in(t, slice);
  for (int64_t n = blockIdx.y; n < count; n += gridDim.y) {
    const Draw d = draw_of(t, slice, n);
    if (!d.wanted) continue;
    const Philox4 r =
        draw4(t.args.stream, column ? kColumnRank : kRowRank, d.k, uint32_t(index), d.draw);
    uint4 factors;
    factors.x = column ? rank_column(r.v[0]) : rank_row(r.v[0]);
    factors.y = column ? rank_column(r.v[1]) : rank_row(r.v[1]);
    factors.z = column ? rank_column(r.v[2]) : rank_row(r.v[2]);
    factors.w = column ? rank_column(r.v[3]) : rank_row(r.v[3]);
    *reinterpret_cast<uint4*>(out + (n * padded + index) * kRankWords) = factors;
  }
}

// ---- exact ----

constexpr int kTiles = 4;  // of 8 columns
using RankPlace = TilePlace<2, 2, kTiles>;
constexpr int kBlockRows = RankPlace::kRows, kBlockColumns = RankPlace::kColumns;
constexpr int kThreads = RankPlace::kThreads;
constexpr int kChunk = 8;  // train words in shared memory at a time

struct alignas(16) RankChunk {
  uint32_t rows[kChunk][kBlockRows], columns[kChunk][kBlockColumns];
  uint32_t rank_rows[kChunk][kBlockRows * kRankWords];
  uint32_t rank_columns[kChunk][kBlockColumns * kRankWords];
};
static_assert(2 * sizeof(RankChunk) <= kStaticShared, "two chunks fit");

// Chunks of a slice to shared memory: one thread's part.
struct RankFeed {
  LineStream<kThreads, kChunk, kBlockRows> rows;
  LineStream<kThreads, kChunk, kBlockColumns> columns;
  LineStream<kThreads, kChunk, kBlockRows * kRankWords> rank_rows;
  LineStream<kThreads, kChunk, kBlockColumns * kRankWords> rank_columns;
  int left;  // train words that have not been asked for
  static PL_DEVICE int64_t row() { return int64_t(blockIdx.y) * kBlockRows; }
  static PL_DEVICE int64_t column() { return int64_t(blockIdx.x) * kBlockColumns; }
  PL_DEVICE RankFeed(const Task& t, int count, RankChunk* chunks)
      : rows(chunks->rows, t.row_words + row(), t.padded_rows),
        columns(chunks->columns, t.column_words + column(), t.padded_cols),
        rank_rows(chunks->rank_rows, t.rank_rows + row() * kRankWords, t.padded_rows * kRankWords),
        rank_columns(chunks->rank_columns, t.rank_columns + column() * kRankWords,
                     t.padded_cols * kRankWords),
        left(count) {}
  PL_DEVICE void next(const Task& t, int stage) {
    const uint32_t offset = uint32_t(stage) * uint32_t(sizeof(RankChunk));
    rows.next(offset, t.padded_rows, left);
    columns.next(offset, t.padded_cols, left);
    rank_rows.next(offset, t.padded_rows * kRankWords, left);
    rank_columns.next(offset, t.padded_cols * kRankWords, left);
    left -= kChunk;
    copies_commit();
  }
};

// Train word s of a chunk, `number` of the slice, of the warp's rows and columns.
template <bool ADDITIVE, class D, class Tap>
PL_DEVICE void pulse_all(const RankChunk& chunk, int s, int number, const RankPlace& at,
                         const D& device, const Roots& roots, uint32_t sign,
                         TileCells<D, kTiles>& cells, Tap& tap) {
  const uint32_t rows[2] = {chunk.rows[s][at.warp_row + at.g],
                            chunk.rows[s][at.warp_row + at.g + 8]};
  const uint32_t mine = chunk.columns[s][at.warp_column + int(threadIdx.x % 32)];
  const uint32_t firing = __ballot_sync(0xffffffffu, int(mine));  // columns with any slot
  if (!firing || !__any_sync(0xffffffffu, int(rows[0] | rows[1]))) return;
  tap.before(number, cells, at);
  const uint32_t* rank_rows = chunk.rank_rows[s] + (at.warp_row + at.g) * kRankWords + at.t;
  const uint32_t a0 = rank_rows[0], a1 = rank_rows[8 * kRankWords];
  const auto take_tile = [&](int n) {
    const int column = at.warp_column + 8 * n;
    const uint2 columns = *reinterpret_cast<const uint2*>(&chunk.columns[s][column + 2 * at.t]);
    float xi[4];
    bf16_mma(xi, a0, a1, chunk.rank_columns[s][(column + at.g) * kRankWords + at.t]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t r = rows[i / 2], c = i % 2 ? columns.y : columns.x;
      const uint32_t count = uint32_t(__popc(r & c & ~kSign));
      cells.w[n][i] = pulse(device, cells.c[n][i], cells.w[n][i], ((r ^ c) & sign) != 0,
                            to_float(count), roots.of(count), xi[i], ADDITIVE);
    }
  };
  if (__popc(firing) > 4 * kTiles) {  // straight through: tiles overlap in the pipeline
#pragma unroll
    for (int n = 0; n < kTiles; ++n) take_tile(n);
  } else {
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
      if (firing >> 8 * n & 0xffu) take_tile(n);
  }
}
static_assert(8 * kTiles == 32, "a vote covers a warp's columns");

template <bool ADDITIVE, class D, class Tap>
PL_DEVICE void exact_ranks_words(const Task& t, const D& device, int slice, const RankPlace& at,
                                 TileCells<D, kTiles>& cells, RankChunk* chunks, Tap& tap) {
  const Roots roots(device.p.pulsed.dw_min_std * kRankUnit);
  const uint32_t sign = opaque(kSign);  // one instruction tests a mask that stands in a register
  const int count = words_in(t, slice);
  for_stages<kChunk>(t, RankFeed(t, count, chunks), count, [&](int stage, int first, int n) {
    for (int s = 0; s < n; ++s)
      pulse_all<ADDITIVE>(chunks[stage], s, first + s, at, device, roots, sign, cells, tap);
  });
}

template <class D, class Tap>
PL_DEVICE void exact_ranks_slice(const Task& t, const D& device, int slice, const RankPlace& at,
                                 TileCells<D, kTiles>& cells, RankChunk* chunks, Tap& tap) {
  if (D::kAdditive && device.additive_noise())
    exact_ranks_words<D::kAdditive>(t, device, slice, at, cells, chunks, tap);
  else
    exact_ranks_words<false>(t, device, slice, at, cells, chunks, tap);
}

template <class D>
__global__ void __launch_bounds__(kThreads, 2)
    exact_ranks_kernel(const __grid_constant__ DeviceTasks<D> tasks, int slice) {
  PL_SHARED(RankChunk, chunks, 2);
  const Task& t = tasks.task[blockIdx.z];
  const D& device = tasks.device[blockIdx.z];
  if (RankPlace::outside(t.args) || slice >= t.slices || still(t)) return;
  const RankPlace at;
  TileCells<D, kTiles> cells(t.args, device, at);
  Untapped tap;
  exact_ranks_slice(t, device, slice, at, cells, chunks, tap);
  cells.store(t.args, at);
}

template <class D>
__global__ void __launch_bounds__(kThreads, 2)
    exact_ranks_tapped_kernel(const __grid_constant__ TappedTask<D> one, int slice) {
  PL_SHARED(RankChunk, chunks, 2);
  const Task& t = one.task;
  if (RankPlace::outside(t.args)) return;
  const RankPlace at;
  TileCells<D, kTiles> cells(t.args, one.device, at);
  Tapped<D, 8 * kTiles> tap(one, t.words, slice * t.slice_samples, at.first_column());
  const bool moves = !still(t);
  if (moves) exact_ranks_slice(t, one.device, slice, at, cells, chunks, tap);
  tap.end(cells, at);
  if (moves) cells.store(t.args, at);
}

template <class D>
struct ExactRanks {
  static cudaError_t run(const Call& c, int slice) {
    TappedTask<D> one;
    if (taps_of_slice(c, slice, one))
      return launch(exact_ranks_tapped_kernel<D>, RankPlace::grid(c), kThreads, 0, c.stream, one,
                    slice);
    return launch(exact_ranks_kernel<D>, RankPlace::grid(c), kThreads, 0, c.stream,
                  device_tasks_of<D>(c), slice);
  }
};

}  // namespace

cudaError_t launch_ranks(const Call& c, int slice) {
  const int64_t lines = most(c, [](const Task& t) { return t.padded_cols + t.padded_rows; });
  const dim3 grid(unsigned(ceil_div(lines, kLineThreads)), kSliceWords, unsigned(c.count));
  return launch(ranks_kernel, grid, kLineThreads, 0, c.stream, tasks_of(c), slice);
}

cudaError_t launch_exact_ranks(const Call& c, int slice) { return launch_of<ExactRanks>(c, slice); }

}  // namespace pulseline::cuda
