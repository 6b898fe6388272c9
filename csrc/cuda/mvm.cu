// Converters and noise of a read: see mvm.h. What a line does is core/read.h, with the bits of the
// CPU; here are the loops.
#include "cuda/device.h"
#include "cuda/mvm.h"

namespace pulseline::cuda {
namespace {

constexpr int kThreads = 256;  // of a block that serves one sample
constexpr int kLines = 128;    // outputs of a block, one per thread
constexpr int kSamples = 32;   // samples of a block of `output`
constexpr int kDepth = 32;     // inputs that `repeat` holds at a time
constexpr uint32_t kEveryLane = 0xffffffffu, kInfinity = 0x7f800000u, kNan = 0x7fc00000u;

struct Range {
  int64_t first, last;
};
PL_DEVICE Range range_of(int64_t n, int64_t size, int64_t total) {
  return {n * size, n * size + size < total ? n * size + size : total};
}

// ---- alpha ----

__global__ void __launch_bounds__(kThreads) alpha_kernel(const ReadJob j) {
  PL_SHARED(uint32_t, part, kThreads / 32);
  const int64_t b = blockIdx.x;
  uint32_t most = 0;
  for (int64_t i = threadIdx.x; i < j.inputs; i += kThreads) {
    const uint32_t u = as_bits(j.args.x[b * j.inputs + i]) & 0x7fffffffu;
    most = u > most ? u : most;
  }
  most = __reduce_max_sync(kEveryLane, most);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = most;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kThreads / 32; ++w) most = part[w] > most ? part[w] : most;
  float alpha = as_float(most), none = 0.0f;
  if (j.args.noise_management != kAverage) alpha = manage_input(j.args, j.chain, alpha, none);
  j.alpha[b] = most >= kInfinity ? as_float(kNan) : alpha;
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

// ---- wires ----

struct Tiles {  // of the matrix as it is stored
  int64_t rows, cols;
};
PL_HD Tiles tiles_of(const ReadArgs& a) {
  return {a.transposed ? a.tile_in : a.tile_out, a.transposed ? a.tile_out : a.tile_in};
}
PL_DEVICE double conductance(float w, int array) {
  const double g = array == 0 ? double(w) : -double(w);
  return g > 0 ? g : 0.0;
}

// A thread walks a column of a tile from its last row to the first.
__global__ void wires_columns_kernel(const ReadJob j, const Wires wires) {
  const ReadArgs& a = j.args;
  const int64_t i = int64_t(blockIdx.x) * kLines + threadIdx.x;
  if (i >= a.cols) return;
  const Range rows = range_of(blockIdx.y, tiles_of(a).rows, a.rows);
  for (int array = 0; array < 2; ++array) {
    double level = 1.0, current = 0.0;
    for (int64_t r = rows.last - 1; r >= rows.first; --r) {
      wires.word[(array * a.rows + r) * a.cols + i] = level;
      current += conductance(a.w[r * a.cols + i], array) * level;
      level += j.chain.wire_resistance * current;
    }
    wires.level[(array * int64_t(gridDim.y) + blockIdx.y) * a.cols + i] = level;
  }
}

// A thread walks a row of a tile from its first column to the last.
__global__ void wires_rows_kernel(const ReadJob j, const Wires wires) {
  const ReadArgs& a = j.args;
  const int64_t r = int64_t(blockIdx.x) * kLines + threadIdx.x;
  if (r >= a.rows) return;
  const Range cols = range_of(blockIdx.y, tiles_of(a).cols, a.cols);
  for (int array = 0; array < 2; ++array) {
    double end = 1.0, through = 0.0;
    for (int64_t i = cols.first; i < cols.last; ++i) {
      wires.bit[(array * a.rows + r) * a.cols + i] = end;
      through += conductance(a.w[r * a.cols + i], array) * end;
      end += j.chain.wire_resistance * through;
    }
    wires.end[(array * a.rows + r) * int64_t(gridDim.y) + blockIdx.y] = end;
  }
}

__global__ void wires_combine_kernel(const ReadJob j, const Wires wires) {
  const ReadArgs& a = j.args;
  const int64_t at = int64_t(blockIdx.x) * kLines + threadIdx.x, count = a.rows * a.cols;
  if (at >= count) return;
  const Tiles tiles = tiles_of(a);
  const int64_t row = at / a.cols, col = at % a.cols;
  const int64_t down = (a.rows + tiles.rows - 1) / tiles.rows;
  const int64_t across = (a.cols + tiles.cols - 1) / tiles.cols;
  double total = 0.0;
  for (int array = 0; array < 2; ++array) {
    const double end = wires.end[(array * a.rows + row) * across + col / tiles.cols];
    const double level = wires.level[(array * down + row / tiles.rows) * a.cols + col];
    const double drop =
        (end / wires.bit[array * count + at] + level / wires.word[array * count + at]) - 1.0;
    const double current = conductance(a.w[at], array) / drop;
    total += array == 0 ? current : -current;
  }
  wires.effective[at] = float(total);
}

// ---- inputs ----

struct InputKeys {  // of one sample in one row block and round
  Keys noise[2], rounding;
};
template <int PASSES>
PL_DEVICE InputKeys keys_of_inputs(const ReadJob& j, int64_t b, int64_t block, int round) {
  InputKeys k = {};
  if (j.args.input_noise > 0.0f)
#pragma unroll
    for (int pass = 0; pass < PASSES; ++pass)
      k.noise[pass] = input_keys(j.args, b, block, pass, round);
  if (j.chain.input_stochastic) k.rounding = rounding_keys(j.args, j.chain, b, block, 0, 0, round);
  return k;
}
// What input i of sample b carries in each pass.
template <int PASSES>
PL_DEVICE void line_inputs(const ReadJob& j, int64_t b, int64_t i, float alpha_beta,
                           const InputKeys& keys, float q[2]) {
  const uint32_t base = uint32_t(i) * kColumnStride;
  const float level =
      input_level(j.args, j.chain, j.args.x[b * j.inputs + i], alpha_beta, base, keys.rounding);
  q[0] = input_pass(j.args, j.chain, level, 0, PASSES, base, keys.noise[0]);
  if (PASSES == 2) q[1] = input_pass(j.args, j.chain, level, 1, 2, base, keys.noise[1]);
}
PL_DEVICE bool wants_norm(const ReadJob& j) { return j.args.weight_noise > 0.0f && !j.chain.pcm; }

// |q|^2 in a warp: lanes 0..15 hold strided partial sums, halves are added as on the CPU.
PL_DEVICE float add_halves(float part) {
  for (int half = 8; half > 0; half /= 2) part = part + __shfl_down_sync(kEveryLane, part, half);
  return part;
}

template <int PASSES>
__global__ void __launch_bounds__(kThreads) input_kernel(const ReadJob j, int64_t block) {
  const int64_t b = blockIdx.x;
  const float alpha = j.alpha[b];
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

struct OutputKeys {  // of one sample in one segment and round, per conversion
  Keys noise[2], rounding[2];
};
PL_DEVICE OutputKeys keys_of_outputs(const ReadJob& j, int64_t b, int64_t segment, int round) {
  OutputKeys k = {};
#pragma unroll
  for (int pass = 0; pass < 2; ++pass) {
    if (pass == 1 && j.chain.passes != kDigitalSum) break;
    if (j.args.output_noise > 0.0f || j.args.weight_noise > 0.0f)
      k.noise[pass] = output_keys(j.args, b, segment, pass, round);
    if (j.chain.output_stochastic)
      k.rounding[pass] = rounding_keys(j.args, j.chain, b, segment, 1, pass, round);
  }
  return k;
}

// One conversion; `inside` falls if the ADC saturates.
PL_DEVICE float convert_once(const ReadJob& j, const OutputLine& line, float y, float variance,
                             uint32_t base, Keys noise, Keys rounding, bool& inside) {
  const bool bends = j.chain.nonlinearity > 0.0f;
  y = output_level(j.args, y, variance, line.noise, bends, line.bend, base, noise);
  if (j.args.adc.bound > 0.0f) inside = inside && absolute(y) < j.args.adc.bound;
  return convert_line(j.args.adc, y, j.chain.output_stochastic != 0, base, rounding);
}

// The passes of an output through its ADC.
template <int PASSES>
PL_DEVICE float convert_output(const ReadJob& j, const OutputLine& line, int64_t output,
                               const float sums[2], const float variances[2],
                               const OutputKeys& keys, bool& inside) {
  const uint32_t base = uint32_t(output) * kColumnStride;
  const float gain = j.chain.output_gain;
  float y = sums[0], variance = variances[0];
  if (PASSES == 2) {
    const float second = sums[1] * gain, spread = variances[1] * (gain * gain);
    if (j.chain.passes == kDigitalSum) {
      const float first =
          convert_once(j, line, y, variance, base, keys.noise[0], keys.rounding[0], inside);
      return first +
             convert_once(j, line, second, spread, base, keys.noise[1], keys.rounding[1], inside);
    }
    y = y + second;
    variance = variance + spread;
  }
  return convert_once(j, line, y, variance, base, keys.noise[0], keys.rounding[0], inside);
}

// Segments add up in order, as on the CPU.
PL_DEVICE void accumulate(float* y, float converted, float scale, bool first) {
  *y = first ? converted * scale : fma(converted, scale, *y);
}

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

// ---- bound management ----

struct Stage {  // of `repeat`, in shared memory
  float q[2][kDepth], w[kDepth][kLines + 1], norm[2];
  float programmed[kDepth][kLines + 1];  // pcm: weights without wires
};

// |q|^2 of a tile's inputs; the barriers of `repeat_load` come before anybody reads it.
template <int PASSES>
PL_DEVICE void repeat_norm(const ReadJob& j, int64_t b, Range in, float alpha_beta,
                           const InputKeys& keys, Stage& stage) {
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
                           float alpha_beta, const InputKeys& keys, Stage& stage) {
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
                           float alpha_beta, float* converted, Stage& stage) {
  const Range in = range_of(segment, j.args.tile_in, j.inputs);
  const Range out = range_of(block, j.args.tile_out, j.outputs);
  const InputKeys keys = keys_of_inputs<PASSES>(j, b, block, round);
  const OutputKeys output = keys_of_outputs(j, b, segment, round);
  if (wants_norm(j)) repeat_norm<PASSES>(j, b, in, alpha_beta, keys, stage);
  bool saturates = false;
  for (int64_t out0 = out.first; out0 < out.last; out0 += kLines) {
    float sums[2] = {0.0f, 0.0f}, variances[2] = {0.0f, 0.0f};
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
    bool inside = true;
    const OutputLine line = output_line(j.args, j.chain, segment, o);
    converted[o] = convert_output<PASSES>(j, line, o, sums, variances, output, inside);
    saturates = saturates || !inside;
  }
  return saturates;
}

// A block is a sample in a row of tiles; each tile doubles its own beta until nothing saturates.
template <int PASSES>
__global__ void __launch_bounds__(kLines, 2) repeat_kernel(const ReadJob j, float* scratch) {
  PL_SHARED(Stage, stage, 1);
  const int64_t b = blockIdx.x % j.args.batch, block = blockIdx.x / j.args.batch;
  if (!j.saturated[blockIdx.x]) return;
  const Range out = range_of(block, j.args.tile_out, j.outputs);
  const float alpha = j.alpha[b];
  float *converted = scratch + b * j.outputs, *y = j.args.y + b * j.outputs;
  for (int64_t s = 0; s < j.segments; ++s) {
    float alpha_beta = alpha;
    for (int round = 0;; ++round) {
      alpha_beta = alpha * float(1 << round);
      const bool saturates =
          repeat_tile<PASSES>(j, b, s, block, round, alpha_beta, converted, *stage);
      if (!__syncthreads_or(saturates) || round == j.args.max_rounds) break;
    }
    for (int64_t o = out.first + threadIdx.x; o < out.last; o += kLines)
      accumulate(y + o, converted[o], alpha_beta * j.args.out_scale, s == 0);
  }
}

}  // namespace

cudaError_t launch_read_wires(const ReadJob& j, const Wires& wires, cudaStream_t stream) {
  const ReadArgs& a = j.args;
  const Tiles tiles = tiles_of(a);
  const dim3 columns(unsigned(ceil_div(a.cols, kLines)), unsigned(ceil_div(a.rows, tiles.rows)));
  const dim3 rows(unsigned(ceil_div(a.rows, kLines)), unsigned(ceil_div(a.cols, tiles.cols)));
  const dim3 all(unsigned(ceil_div(a.rows * a.cols, kLines)));
  PL_TRY(launch(wires_columns_kernel, columns, dim3(kLines), 0, stream, j, wires));
  PL_TRY(launch(wires_rows_kernel, rows, dim3(kLines), 0, stream, j, wires));
  return launch(wires_combine_kernel, all, dim3(kLines), 0, stream, j, wires);
}

cudaError_t launch_read_alpha(const ReadJob& j, cudaStream_t stream) {
  PL_TRY(launch(alpha_kernel, dim3(unsigned(j.args.batch)), dim3(kThreads), 0, stream, j));
  if (j.args.noise_management != kAverage) return cudaSuccess;
  return launch(average_kernel, dim3(1), dim3(32), 0, stream, j);
}

cudaError_t launch_read_input(const ReadJob& j, int64_t block, cudaStream_t stream) {
  return launch(j.passes == 2 ? input_kernel<2> : input_kernel<1>, dim3(unsigned(j.args.batch)),
                dim3(kThreads), 0, stream, j, block);
}

cudaError_t launch_read_output(const ReadJob& j, const ReadSums& sums, cudaStream_t stream) {
  const int64_t blocks = ceil_div(sums.out1 - sums.out0, kLines) * ceil_div(j.args.batch, kSamples);
  return launch(j.passes == 2 ? output_kernel<2> : output_kernel<1>, dim3(unsigned(blocks)),
                dim3(kLines), 0, stream, j, sums);
}

cudaError_t launch_read_repeat(const ReadJob& j, float* converted, cudaStream_t stream) {
  const unsigned blocks = unsigned(j.args.batch * j.blocks);
  return launch(j.passes == 2 ? repeat_kernel<2> : repeat_kernel<1>, dim3(blocks), dim3(kLines), 0,
                stream, j, converted);
}

}  // namespace pulseline::cuda
