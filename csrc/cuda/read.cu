// Noise management, inputs and outputs of a read: see read.h. What a line does is core/read.h, with
// the bits of the CPU; here are the loops.
#include "cuda/read_device.h"

namespace pulseline::cuda {
namespace {

constexpr int kThreads = 256;  // of a block that serves one sample
constexpr uint32_t kInfinity = 0x7f800000u, kNan = 0x7fc00000u;
constexpr int kSamples = 8, kAcross = 4 * kLines;  // samples and outputs of a block of `output`

using Four = Floats<4>;  // neighbouring outputs of a thread

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

// A thread is four neighbouring outputs of kSamples samples. quads: 16 bytes are aligned.
template <int PASSES>
__global__ void __launch_bounds__(kLines)
    output_kernel(const ReadJob j, const ReadSums s, bool quads) {
  PL_SHARED(OutputKeys, keys, kSamples);
  const int64_t width = s.out1 - s.out0, chunks = (width + kAcross - 1) / kAcross;
  const int64_t first = blockIdx.x % chunks * kAcross + threadIdx.x * 4, o = s.out0 + first;
  const int64_t b0 = blockIdx.x / chunks * kSamples;
  const int64_t b1 = b0 + kSamples < j.args.batch ? b0 + kSamples : j.args.batch;
  if (threadIdx.x < kSamples && b0 + threadIdx.x < b1)
    keys[threadIdx.x] = keys_of_outputs(j, b0 + threadIdx.x, s.segment, 0);
  __syncthreads();
  if (first >= width) return;
  Line<Four> line;
#pragma unroll
  for (int v = 0; v < 4; ++v) {
    const OutputLine one = output_line(j.args, j.chain, s.segment, o + v);
    line.noise.v[v] = one.noise;
    line.bend.v[v] = one.bend;
  }
  const auto base = lanes_of<uint32_t, 4>([&](int v) { return uint32_t(o + v) * kColumnStride; });
  const int64_t count = width - first;
#pragma unroll 1
  for (int64_t b = b0; b < b1; ++b) {
    const float alpha = j.alpha[b];
    const Neighbours<4, float> y = {j.args.y + (b * j.outputs + o), count, quads};
    if (!(alpha > 0.0f)) {
      if (s.segment == 0) y.store(Four(alpha * 0.0f));  // NaN stays NaN
      continue;
    }
    Four before(0.0f), sums[PASSES], variances[PASSES];
    if (s.segment > 0) before = y.load();
    const int64_t at = b * width + first;
#pragma unroll
    for (int pass = 0; pass < PASSES; ++pass) {
      variances[pass] = Four(0.0f);
      sums[pass] = Neighbours<4, const float>{s.sums[pass] + at, count, quads}.load();
      if (j.chain.pcm)
        variances[pass] = Neighbours<4, const float>{s.squares[pass] + at, count, quads}.load();
      if (wants_norm(j)) variances[pass] = Four(j.norm[pass][s.segment * j.args.batch + b]);
    }
    Four level(0.0f);
    const Four converted =
        convert_output<PASSES>(j, line, base, sums, variances, keys[b - b0], level);
    y.store(accumulate(before, converted, alpha * j.args.out_scale, s.segment == 0));
    if (j.saturated) note_saturated(j, level, count, o, b);
  }
}

__global__ void advance_kernel(const ReadJob j) {
  *const_cast<int64_t*>(j.args.counter) += j.args.batch;
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

cudaError_t launch_read_advance(const ReadJob& j, cudaStream_t stream) {
  if (!j.args.counter) return cudaSuccess;
  return launch(advance_kernel, 1, 1, 0, stream, j);
}

cudaError_t launch_read_input(const ReadJob& j, int64_t block, cudaStream_t stream) {
  const dim3 samples(unsigned(j.args.batch));
  if (block == 0 && j.args.noise_management == kAverage) {
    PL_TRY(launch(largest_kernel, samples, dim3(kThreads), 0, stream, j));
    PL_TRY(launch(average_kernel, dim3(1), dim3(32), 0, stream, j));
  }
  return launch(j.passes == 2 ? input_kernel<2> : input_kernel<1>, samples, dim3(kThreads), 0,
                stream, j, block);
}

cudaError_t launch_read_output(const ReadJob& j, const ReadSums& s, cudaStream_t stream) {
  const int64_t width = s.out1 - s.out0;
  const int64_t blocks = ceil_div(width, kAcross) * ceil_div(j.args.batch, kSamples);
  bool quads = (width | s.out0 | j.outputs) % 4 == 0 && aligned(j.args.y);
  for (int pass = 0; pass < j.passes; ++pass)
    quads = quads && aligned(s.sums[pass]) && aligned(s.squares[pass]);
  return launch(j.passes == 2 ? output_kernel<2> : output_kernel<1>, dim3(unsigned(blocks)),
                dim3(kLines), 0, stream, j, s, quads);
}

}  // namespace pulseline::cuda
