// Bound management of a read: samples that saturated in a row of tiles are read again, tile by
// tile, with beta doubled and fresh draws until nothing saturates. All of it happens in one launch,
// which ends at once for the others; sums are in the order of the CPU.
#include "cuda/read_device.h"

namespace pulseline::cuda {
namespace {

constexpr int kDepth = 32;  // inputs in shared memory at a time

struct RepeatStage {  // of `repeat`, in shared memory
  float q[2][kDepth], w[kDepth][kLines + 1], norm[2];
  float programmed[kDepth][kLines + 1];  // pcm: weights without wires
};

// |q|^2 of a tile's inputs; the barriers of `repeat_load` come before anybody reads it.
template <int PASSES>
PL_DEVICE void repeat_norm(const ReadJob& j, int64_t b, Range in, float alpha_beta,
                           const InputKeys& keys, RepeatStage& stage) {
  if (threadIdx.x >= 32) return;
  float part[2] = {0.0f, 0.0f};
  if (threadIdx.x < 16)
    for (int64_t i = in.first + threadIdx.x; i < in.last; i += 16) {
      float q[2] = {0.0f, 0.0f};
      line_inputs<PASSES>(j, b, i, alpha_beta, keys, q);
#pragma unroll
      for (int pass = 0; pass < PASSES; ++pass) part[pass] = fma(q[pass], q[pass], part[pass]);
    }
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
    const float norm = add_halves(part[pass]);
    if (threadIdx.x == 0) stage.norm[pass] = norm;
  }
}

// Inputs in0.. and their weights of outputs out0.., at most kDepth by kLines.
template <int PASSES>
PL_DEVICE void repeat_load(const ReadJob& j, int64_t b, Range in, int64_t out0, int64_t out1,
                           float alpha_beta, const InputKeys& keys, RepeatStage& stage) {
  const ReadArgs& a = j.args;
  __syncthreads();
  if (threadIdx.x < kDepth && in.first + threadIdx.x < in.last) {
    float q[2] = {0.0f, 0.0f};
    line_inputs<PASSES>(j, b, in.first + threadIdx.x, alpha_beta, keys, q);
#pragma unroll
    for (int pass = 0; pass < PASSES; ++pass) stage.q[pass][threadIdx.x] = q[pass];
  }
  for (int n = threadIdx.x; n < kDepth * kLines; n += kLines) {
    // Neighbours in memory go to neighbouring threads.
    const int k = a.transposed ? n / kLines : n % kDepth;
    const int line = a.transposed ? n % kLines : n / kDepth;
    const int64_t i = in.first + k, o = out0 + line;
    if (i >= in.last || o >= out1) continue;
    const int64_t at = a.transposed ? i * a.cols + o : o * a.cols + i;
    stage.w[k][line] = j.effective ? j.effective[at] : a.w[at];
    if (j.chain.pcm) stage.programmed[k][line] = a.w[at];
  }
  __syncthreads();
}

// One tile in one round: converted outputs; whether one of this thread's saturates.
template <int PASSES>
PL_DEVICE bool repeat_tile(const ReadJob& j, int64_t b, int64_t segment, int64_t block, int round,
                           float alpha_beta, float* converted, RepeatStage& stage) {
  const Range in = range_of(segment, j.args.tile_in, j.inputs);
  const Range out = range_of(block, j.args.tile_out, j.outputs);
  const InputKeys keys = keys_of_inputs<PASSES>(j, b, block, round);
  const OutputKeys output = keys_of_outputs(j, b, segment, round);
  if (wants_norm(j)) repeat_norm<PASSES>(j, b, in, alpha_beta, keys, stage);
  bool saturated = false;
  for (int64_t out0 = out.first; out0 < out.last; out0 += kLines) {
    float sums[PASSES] = {}, variances[PASSES] = {};
    for (int64_t k0 = in.first; k0 < in.last; k0 += kDepth) {
      repeat_load<PASSES>(j, b, {k0, in.last}, out0, out.last, alpha_beta, keys, stage);
      // Inputs in order from zero: the sums of the CPU.
      for (int k = 0; k < kDepth && k0 + k < in.last; ++k)
#pragma unroll
        for (int pass = 0; pass < PASSES; ++pass) {
          const float q = stage.q[pass][k], w = stage.w[k][threadIdx.x];
          sums[pass] = fma(q, w, sums[pass]);
          if (j.chain.pcm)
            variances[pass] =
                fma(q * q, absolute(stage.programmed[k][threadIdx.x]), variances[pass]);
        }
    }
    const int64_t o = out0 + threadIdx.x;
    if (o >= out.last) continue;
    if (wants_norm(j))
#pragma unroll
      for (int pass = 0; pass < PASSES; ++pass) variances[pass] = stage.norm[pass];
    float level = 0.0f;
    const OutputLine line = output_line(j.args, j.chain, segment, o);
    converted[o] =
        convert_output<PASSES>(j, Line<float>{line.noise, line.bend}, uint32_t(o) * kColumnStride,
                               sums, variances, output, level);
    saturated = saturated || saturates(j, level);
  }
  return saturated;
}

// A block is a sample in a row of tiles; each tile doubles its own beta until nothing saturates.
template <int PASSES>
__global__ void __launch_bounds__(kLines, 2) repeat_kernel(const ReadJob j, float* scratch) {
  PL_SHARED(RepeatStage, stage, 1);
  const int64_t b = blockIdx.x % j.args.batch, block = blockIdx.x / j.args.batch;
  if (!j.saturated[blockIdx.x]) return;
  const Range out = range_of(block, j.args.tile_out, j.outputs);
  const float alpha = j.alpha[b];
  float *converted = scratch + b * j.outputs, *y = j.args.y + b * j.outputs;
  for (int64_t s = 0; s < j.segments; ++s) {
    float alpha_beta = alpha;
    for (int round = 0;; ++round) {
      alpha_beta = alpha * float(1 << round);
      const bool saturated =
          repeat_tile<PASSES>(j, b, s, block, round, alpha_beta, converted, *stage);
      if (!__syncthreads_or(saturated) || round == j.args.max_rounds) break;
    }
    for (int64_t o = out.first + threadIdx.x; o < out.last; o += kLines)
      y[o] = accumulate(y[o], converted[o], alpha_beta * j.args.out_scale, s == 0);
  }
}

}  // namespace

cudaError_t launch_read_repeat(const ReadJob& j, float* converted, cudaStream_t stream) {
  const unsigned blocks = unsigned(j.args.batch * j.blocks);
  return launch(j.passes == 2 ? repeat_kernel<2> : repeat_kernel<1>, dim3(blocks), dim3(kLines), 0,
                stream, j, converted);
}

}  // namespace pulseline::cuda
