#pragma once
// What the kernels of the read share: keys, and what one input and one output do.
#include "cuda/device.h"
#include "cuda/mvm.h"

namespace pulseline::cuda {

constexpr int kLines = 128;  // outputs of a block, one per thread
constexpr uint32_t kEveryLane = 0xffffffffu;

struct Range {
  int64_t first, last;
};
PL_DEVICE Range range_of(int64_t n, int64_t size, int64_t total) {
  return {n * size, n * size + size < total ? n * size + size : total};
}

// Of a crosspoint in the array of positive (0) or of negative weights (1).
PL_DEVICE double conductance(float w, int array) {
  const double g = array == 0 ? double(w) : -double(w);
  return g > 0 ? g : 0.0;
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

}  // namespace pulseline::cuda
