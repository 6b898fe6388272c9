// Noise management, inputs and outputs of a read: see mvm.h. What a line does is core/read.h, with
// the bits of the CPU; here are the loops.
#include "cuda/mvm_device.h"

namespace pulseline::cuda {
namespace {

constexpr int kThreads = 256;  // of a block that serves one sample
constexpr uint32_t kInfinity = 0x7f800000u, kNan = 0x7fc00000u;
constexpr int kSamples = 32;  // samples of a block of `output`

// ---- alpha ----

// Bits of the largest magnitude, in every thread. `part`: one word per warp.
PL_DEVICE uint32_t largest(const ReadJob& j, int64_t b, uint32_t* part) {
  uint32_t most = 0;
  for (int64_t i = threadIdx.x; i < j.inputs; i += kThreads) {
    const uint32_t u = as_bits(j.args.x[b * j.inputs + i]) & 0x7fffffffu;
    most = u > most ? u : most;
  }
  most = __reduce_max_sync(kEveryLane, most);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = most;
  __syncthreads();
  for (int w = 0; w < kThreads / 32; ++w) most = part[w] > most ? part[w] : most;
  return most;
}
PL_DEVICE float finite_or_nan(uint32_t most, float alpha) {
  return most < kInfinity ? alpha : as_float(kNan);
}

__global__ void __launch_bounds__(kThreads) largest_kernel(const ReadJob j) {
  PL_SHARED(uint32_t, part, kThreads / 32);
  const uint32_t most = largest(j, blockIdx.x, part);
  if (threadIdx.x == 0) j.alpha[blockIdx.x] = finite_or_nan(most, as_float(most));
}

// The running average is a chain over the samples: one warp, all lanes the same.
__global__ void average_kernel(const ReadJob j) {
  const int lane = threadIdx.x;
  float average = j.chain.average ? *j.chain.average : 0.0f;
  for (int64_t b0 = 0; b0 < j.args.batch; b0 += 32) {
    const float largest = b0 + lane < j.args.batch ? j.alpha[b0 + lane] : 0.0f;
    float mine = 0.0f;
    for (int l = 0; l < 32 && b0 + l < j.args.batch; ++l) {
      float alpha = __shfl_sync(kEveryLane, largest, l);
      if (as_bits(alpha) < kInfinity) alpha = manage_input(j.args, j.chain, alpha, average);
      if (l == lane) mine = alpha;
    }
    if (b0 + lane < j.args.batch) j.alpha[b0 + lane] = mine;
  }
  if (lane == 0 && j.chain.advance) *j.chain.average = average;
}

// ---- inputs ----

template <int PASSES>
__global__ void __launch_bounds__(kThreads) input_kernel(const ReadJob j, int64_t block) {
  PL_SHARED(uint32_t, part, kThreads / 32);
  const int64_t b = blockIdx.x;
  float alpha, none = 0.0f;
  if (block == 0 && j.args.noise_management != kAverage) {
    const uint32_t most = largest(j, b, part);
    alpha = finite_or_nan(most, manage_input(j.args, j.chain, as_float(most), none));
    if (threadIdx.x == 0) j.alpha[b] = alpha;
  } else {
    alpha = j.alpha[b];
  }
  const bool silent = !(alpha > 0.0f);
  const InputKeys keys = keys_of_inputs<PASSES>(j, b, block, 0);
  for (int64_t i = threadIdx.x; i < j.inputs; i += kThreads) {
    float q[2] = {0.0f, 0.0f};
    if (!silent) line_inputs<PASSES>(j, b, i, alpha, keys, q);
#pragma unroll
    for (int pass = 0; pass < PASSES; ++pass) {
      j.q[pass][b * j.inputs + i] = q[pass];
      if (j.chain.pcm) j.square[pass][b * j.inputs + i] = q[pass] * q[pass];
    }
  }
  if (!wants_norm(j)) return;
  __syncthreads();  // of what this block has written
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass)
    for (int64_t segment = threadIdx.x / 32; segment < j.segments; segment += kThreads / 32) {
      const Range in = range_of(segment, j.args.tile_in, j.inputs);
      float part = 0.0f;
      if (lane < 16)
        for (int64_t i = in.first + lane; i < in.last; i += 16) {
          const float q = j.q[pass][b * j.inputs + i];
          part = fma(q, q, part);
        }
      part = add_halves(part);
      if (lane == 0) j.norm[pass][segment * j.args.batch + b] = part;
    }
}

// ---- outputs ----

// A thread is an output of kSamples samples.
template <int PASSES>
__global__ void __launch_bounds__(kLines) output_kernel(const ReadJob j, const ReadSums s) {
  PL_SHARED(OutputKeys, keys, kSamples);
  const int64_t width = s.out1 - s.out0, chunks = (width + kLines - 1) / kLines;
  const int64_t o = s.out0 + blockIdx.x % chunks * kLines + threadIdx.x;
  const int64_t b0 = blockIdx.x / chunks * kSamples;
  const int64_t b1 = b0 + kSamples < j.args.batch ? b0 + kSamples : j.args.batch;
  if (threadIdx.x < kSamples && b0 + threadIdx.x < b1)
    keys[threadIdx.x] = keys_of_outputs(j, b0 + threadIdx.x, s.segment, 0);
  __syncthreads();
  if (o >= s.out1) return;
  const OutputLine line = output_line(j.args, j.chain, s.segment, o);
  for (int64_t b = b0; b < b1; ++b) {
    const float alpha = j.alpha[b];
    float* y = j.args.y + b * j.outputs + o;
    if (!(alpha > 0.0f)) {
      if (s.segment == 0) *y = alpha * 0.0f;  // NaN stays NaN
      continue;
    }
    float sums[2] = {0.0f, 0.0f}, variances[2] = {0.0f, 0.0f};
    const int64_t at = b * width + (o - s.out0);
#pragma unroll
    for (int pass = 0; pass < PASSES; ++pass) {
      sums[pass] = s.sums[pass][at];
      if (j.chain.pcm) variances[pass] = s.squares[pass][at];
      if (wants_norm(j)) variances[pass] = j.norm[pass][s.segment * j.args.batch + b];
    }
    bool inside = true;
    const float converted =
        convert_output<PASSES>(j, line, o, sums, variances, keys[b - b0], inside);
    accumulate(y, converted, alpha * j.args.out_scale, s.segment == 0);
    // Whoever comes writes the same.
    if (!inside && j.saturated) j.saturated[o / j.args.tile_out * j.args.batch + b] = 1;
  }
}

}  // namespace

cudaError_t launch_read_input(const ReadJob& j, int64_t block, cudaStream_t stream) {
  const dim3 samples(unsigned(j.args.batch));
  if (block == 0 && j.args.noise_management == kAverage) {
    PL_TRY(launch(largest_kernel, samples, dim3(kThreads), 0, stream, j));
    PL_TRY(launch(average_kernel, dim3(1), dim3(32), 0, stream, j));
  }
  return launch(j.passes == 2 ? input_kernel<2> : input_kernel<1>, samples, dim3(kThreads), 0,
                stream, j, block);
}

cudaError_t launch_read_output(const ReadJob& j, const ReadSums& sums, cudaStream_t stream) {
  const int64_t blocks = ceil_div(sums.out1 - sums.out0, kLines) * ceil_div(j.args.batch, kSamples);
  return launch(j.passes == 2 ? output_kernel<2> : output_kernel<1>, dim3(unsigned(blocks)),
                dim3(kLines), 0, stream, j, sums);
}

}  // namespace pulseline::cuda
