// Products and outputs of a read in one kernel, y = alpha scale sum_s convert(W_s q_s): a block
// goes through the segments s of inputs, whose sums never leave its registers. Products are those
// of read_fused.h, conversions those of read_device.h.
#include "cuda/read_fused.h"

namespace pulseline::cuda {
namespace {

using namespace fused;

using Eight = Floats<8>;  // neighbouring outputs of a lane

// What the conversions of a segment look up.
template <int PASSES>
struct Lookup {
  float alpha[kSamples<PASSES>];
  OutputKeys keys[kSamples<PASSES>];
  OutputLine lines[kWide];
  float norm[PASSES][kSamples<PASSES>];
};

template <int PASSES, bool TRANSPOSED>
PL_DEVICE void look_up(const ReadJob& j, const Source<PASSES, TRANSPOSED>& from, int segment,
                       Lookup<PASSES>& look) {
  const int n = int(here(threadIdx.x));
  const int64_t b = from.b0 + n;
  if (n < kSamples<PASSES> && from.has_sample(j, n)) {
    look.alpha[n] = j.alpha[b];
    look.keys[n] = keys_of_outputs(j, b, segment, 0);
    if (wants_norm(j))
#pragma unroll
      for (int pass = 0; pass < PASSES; ++pass)
        look.norm[pass][n] = j.norm[pass][segment * j.args.batch + b];
  }
  if (n < kWide && from.has_output(n))
    look.lines[n] = output_line(j.args, j.chain, segment, from.o0 + n);
}

// Registers have no index: calls f with the constant that r is.
template <int N>
struct Row {
  static constexpr int value = N;
};
template <int COUNT, int N = 0, class F>
PL_DEVICE void with_row(int r, F f) {
  if constexpr (N + 1 == COUNT) {
    f(Row<N>());
  } else {
    if (r == N)
      f(Row<N>());
    else
      with_row<COUNT, N + 1>(r, f);
  }
}

// Converted sums of 8 outputs from o0 on, `column` of the block.
template <int PASSES>
PL_DEVICE Eight convert_row(const ReadJob& j, const Lookup<PASSES>& look, int row, int column,
                            int o0, const Eight (&sums)[PASSES], Eight& level) {
  const Line<Eight> line = {lanes_of<float, 8>([&](int v) { return look.lines[column + v].noise; }),
                            lanes_of<float, 8>([&](int v) { return look.lines[column + v].bend; })};
  const auto base = lanes_of<uint32_t, 8>([&](int v) { return uint32_t(o0 + v) * kColumnStride; });
  Eight variances[PASSES];
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass)
    variances[pass] = Eight(wants_norm(j) ? look.norm[pass][row] : 0.0f);
  return convert_output<PASSES>(j, line, base, sums, variances, look.keys[row], level);
}

// y += alpha scale convert(sums) of one segment, row by row of a lane.
template <int PASSES, bool TRANSPOSED>
PL_DEVICE void convert_segment(const ReadJob& j, const Source<PASSES, TRANSPOSED>& from,
                               const Lane& at, Alignment aligned, const Lookup<PASSES>& look,
                               int segment,
                               const float (&sums)[PASSES][kTilesDown<PASSES>][kTilesAcross][4]) {
  constexpr int kRows = 2 * kTilesDown<PASSES>;
  const int column = at.column + 8 * at.t, o0 = from.o0 + column;
  const bool quads = aligned.y && from.has_output(column + 7);
#pragma unroll 1
  for (int r = 0; r < kRows; ++r) {
    const int row = at.row + 8 * r + at.g;
    if (!from.has_sample(j, row)) continue;
    const int64_t b = from.b0 + row;
    const float alpha = look.alpha[row];
    const Neighbours<8, float> y = {j.args.y + (b * j.outputs + o0), from.out1 - o0, quads};
    if (!(alpha > 0.0f)) {
      if (segment == 0) y.store(Eight(alpha * 0.0f));  // NaN stays NaN
      continue;
    }
    Eight before(0.0f), part[PASSES];
    if (segment > 0) before = y.load();
    with_row<kRows>(r, [&](auto constant) {
      constexpr int n = decltype(constant)::value;
#pragma unroll
      for (int pass = 0; pass < PASSES; ++pass)
        part[pass] =
            lanes_of<float, 8>([&](int v) { return sums[pass][n / 2][v % 4][n % 2 * 2 + v / 4]; });
    });
    Eight level(0.0f);
    const Eight converted = convert_row<PASSES>(j, look, row, column, o0, part, level);
    y.store(accumulate(before, converted, alpha * j.args.out_scale, segment == 0));
    if (j.saturated) note_saturated(j, level, y.count, o0, b);
  }
}

template <int PASSES, bool TRANSPOSED>
__global__ void __launch_bounds__(kThreads, 2)
    fused_kernel(const ReadJob j, int out0, int out1, Alignment aligned) {
  PL_SHARED(Stage<PASSES>, stages, kStages);
  PL_SHARED(Lookup<PASSES>, look, 1);
  const int across = (out1 - out0 + kWide - 1) / kWide;
  const Source<PASSES, TRANSPOSED> from(j, int(blockIdx.x) / across * kSamples<PASSES>,
                                        out0 + int(blockIdx.x) % across * kWide, out1);
  const Lane at = lane_of_thread<PASSES>();
  Cursor ahead;
#pragma unroll
  for (int n = 0; n + 1 < kStages; ++n) fetch(j, from, aligned, ahead.next(j), stages[n]);
  int stage = 0;
#pragma unroll 1
  for (int segment = 0; segment < int(j.segments); ++segment) {
    float sums[PASSES][kTilesDown<PASSES>][kTilesAcross][4] = {};
    const int64_t left = j.inputs - segment * j.args.tile_in;
    const int length = int(left < j.args.tile_in ? left : j.args.tile_in);
#pragma unroll 1
    for (int k = 0; k < length; k += kDepth) {
      copies_wait<kStages - 2>();
      __syncthreads();  // the step is there, and nobody reads the one before or old lookups
      fetch(j, from, aligned, ahead.next(j), stages[stage == 0 ? kStages - 1 : stage - 1]);
      if (k == 0) look_up(j, from, segment, *look);
      multiply<PASSES, TRANSPOSED>(stages[stage], at, sums);
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
    __syncthreads();
    convert_segment(j, from, at, aligned, *look, segment, sums);
  }
  copies_wait<0>();
}

bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

cudaError_t launch_read_fused(const ReadJob& j, int64_t out0, int64_t out1, cudaStream_t stream) {
  if (!can_fuse(j)) return cudaErrorInvalidValue;
  const bool quads = j.inputs % 4 == 0 && (j.segments == 1 || j.args.tile_in % 4 == 0);
  const bool q = quads && aligned16(j.q[0]) && (j.passes == 1 || aligned16(j.q[1]));
  const bool lines = j.args.transposed ? (j.args.cols | out0) % 4 == 0 : quads;
  const Alignment aligned = {q, lines && aligned16(j.effective ? j.effective : j.args.w),
                             j.outputs % 4 == 0 && out0 % 4 == 0 && aligned16(j.args.y)};
  const int64_t samples = j.passes == 2 ? kSamples<2> : kSamples<1>;
  const dim3 blocks(unsigned(ceil_div(out1 - out0, kWide) * ceil_div(j.args.batch, samples)));
  const auto kernel = j.args.transposed
                          ? (j.passes == 2 ? fused_kernel<2, true> : fused_kernel<1, true>)
                          : (j.passes == 2 ? fused_kernel<2, false> : fused_kernel<1, false>);
  return launch(kernel, blocks, dim3(kThreads), 0, stream, j, int(out0), int(out1), aligned);
}

}  // namespace pulseline::cuda
