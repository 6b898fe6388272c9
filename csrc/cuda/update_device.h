#pragma once
// What the kernels of the update share.
#include "cuda/device.h"
#include "cuda/update.h"

namespace pulseline::cuda {

PL_DEVICE bool refused(const Task& t) { return *t.status != kAllFinite; }
// No crosspoint is looked at: at lr = 0 one outside its bounds stays there, as on the CPU. Trains
// are drawn all the same, without a slot: write noise asks them.
PL_DEVICE bool still(const Task& t) { return refused(t) || !(t.args.train.lr > 0.0f); }
// Running number of the call's first sample, as it was when the call began.
PL_DEVICE uint64_t call_number(const Task& t) { return t.status[1]; }

// Words of a slice in the exact layout.
PL_DEVICE int64_t first_word(const Task& t, int slice) {
  return int64_t(slice) * t.slice_samples * t.words;
}
PL_DEVICE int words_in(const Task& t, int slice) {
  const int64_t all = t.args.batch * t.words, first = first_word(t, slice);
  const int64_t most = int64_t(t.slice_samples) * t.words;
  return int(first >= all ? 0 : all - first < most ? all - first : most);
}

// Halves of a pair of bf16 as floats in registers of their own: the compiler would keep the pair
// and take it apart at every use.
PL_DEVICE float first_of(uint32_t pair) { return as_float(opaque(pair & 0xffff0000u)); }
PL_DEVICE float second_of(uint32_t pair) { return as_float(opaque(pair << 16)); }

// A crosspoint and its weight; outside of the matrix one that never moves.
template <class D>
PL_DEVICE Crosspoint<float> load_crosspoint(const UpdateArgs& a, const D& device, int64_t row,
                                            int64_t column, float& w) {
  const bool inside = row < a.rows && column < a.cols;
  const int64_t o = row * a.cols + column;
  const uint32_t step = inside ? a.step[o] : 0u, bound = inside ? a.bound[o] : 0u;
  Crosspoint<float> c = {};
  c.up = first_of(step);
  c.down = second_of(step);
  c.hi = first_of(bound);
  c.lo = second_of(bound);
  if (D::kSlopes) {
    const uint32_t slope = inside ? a.slope[o] : 0u;
    c.slope_up = first_of(slope);
    c.slope_down = second_of(slope);
  }
  w = inside ? a.w[o] : 0.0f;
  device.prepare(c);
  return c;
}
// Adding +0 turns -0 into +0: a stored weight is never -0, whatever was skipped.
PL_DEVICE void store_weight(const UpdateArgs& a, int64_t row, int64_t column, float w) {
  if (row < a.rows && column < a.cols) a.w[row * a.cols + column] = w + 0.0f;
}

// sigma sqrt(n) of all n < 32, one per lane.
struct Roots {
  float root;
  PL_DEVICE explicit Roots(float sigma) : root(square_root(float(int(threadIdx.x % 32))) * sigma) {}
  PL_DEVICE float of(uint32_t n) const { return __shfl_sync(0xffffffffu, root, int(n)); }
};

// A stream of lines of WIDTH words to stages in shared memory, LINES at a time, PITCH words apart
// there: the part of one of THREADS threads, whose place in a line is worked out once.
template <int THREADS, int LINES, int WIDTH, int PITCH = WIDTH>
struct LineStream {
  static constexpr int kQuads = WIDTH / 4, kAtOnce = THREADS / kQuads;
  static_assert(WIDTH % 4 == 0 && THREADS % kQuads == 0, "a thread's place in a line is fixed");
  int line;
  const uint32_t* from;
  SharedAddress to;
  // `lines`: of the first stage. `stride`: words from one line to the next in global memory.
  PL_DEVICE LineStream(const void* lines, const uint32_t* first, int64_t stride) {
    line = int(threadIdx.x) / kQuads;
    const int q = int(threadIdx.x) % kQuads * 4;
    from = first + line * stride + q;
    to = shared_address(lines) + uint32_t(line * PITCH + q) * 4u;
    if (kAtOnce > LINES && line >= LINES) line = 1 << 30;  // nothing to do
  }
  // The next lines, of which `count` exist, to the stage that begins `offset` bytes further on.
  PL_DEVICE void next(uint32_t offset, int64_t stride, int count) {
#pragma unroll
    for (int l = 0; l < LINES; l += kAtOnce) {
      if (line + l < count) copy16_async(to + offset + uint32_t(l * PITCH * 4), from);
      from += (kAtOnce < LINES ? kAtOnce : LINES) * stride;
    }
  }
};

// Runs a feed, the next stage on its way while one is in use: body(stage, first, n) for each of the
// two stages in turn, which then holds n items, `first` of `count` on and SIZE at most.
template <int SIZE, class Feed, class Body>
PL_DEVICE void for_stages(const Task& t, Feed feed, int count, Body body) {
  feed.next(t, 0);
  for (int first = 0; first < count; first += SIZE) {
    const int stage = first / SIZE % 2;
    feed.next(t, 1 - stage);
    copies_wait<1>();
    __syncthreads();
    body(stage, first, count - first < SIZE ? count - first : SIZE);
    __syncthreads();
  }
  copies_wait<0>();
}

// Blocks of so many crosspoints over the largest matrix, by tile.
inline dim3 block_grid(const Call& c, int block_rows, int block_columns) {
  const int64_t rows = most(c, [](const Task& t) { return t.args.rows; });
  const int64_t cols = most(c, [](const Task& t) { return t.args.cols; });
  return {unsigned(ceil_div(cols, block_columns)), unsigned(ceil_div(rows, block_rows)),
          unsigned(c.count)};
}

// One launcher per device model, chosen by its number.
template <template <class> class Launcher, class... A>
cudaError_t launch_of(const Call& c, A... arguments) {
#define PULSELINE_CASE(D) \
  if (c.device == k##D) return Launcher<D>::run(c, arguments...);
  PULSELINE_DEVICES(PULSELINE_CASE)
#undef PULSELINE_CASE
  return cudaErrorInvalidValue;
}

}  // namespace pulseline::cuda
