#pragma once
// What the kernels of the read share: keys, and what one input and one output do.
#include "cuda/device.h"
#include "cuda/lanes.h"
#include "cuda/read.h"

namespace pulseline::cuda {

constexpr int kLines = 128;  // outputs of a block, one per thread
constexpr uint32_t kEveryLane = 0xffffffffu;

struct Range {
  int64_t first, last;
};
PL_DEVICE Range range_of(int64_t n, int64_t size, int64_t total) {
  return {n * size, n * size + size < total ? n * size + size : total};
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

// F: float, or Floats of neighbouring outputs; U: the words beside it.
template <class F>
struct Line {  // OutputLine of F
  F noise, bend;
};

// One conversion; `level`: the largest magnitude that its ADC has seen.
template <class F, class U>
PL_DEVICE F convert_once(const ReadJob& j, const Line<F>& line, F y, F variance, U base, Keys noise,
                         Keys rounding, F& level) {
  const bool bends = j.chain.nonlinearity > 0.0f;
  y = output_level(j.args, y, variance, line.noise, bends, line.bend, base, noise);
  if (j.args.adc.bound > 0.0f) level = max(absolute(y), level);
  return pass_finite(y,
                     convert_line(j.args.adc, y, j.chain.output_stochastic != 0, base, rounding));
}

// The passes of an output through its ADC; base: output * kColumnStride.
template <int PASSES, class F, class U>
PL_DEVICE F convert_output(const ReadJob& j, const Line<F>& line, U base, const F (&sums)[PASSES],
                           const F (&variances)[PASSES], const OutputKeys& keys, F& level) {
  if constexpr (PASSES == 1) {
    return convert_once(j, line, sums[0], variances[0], base, keys.noise[0], keys.rounding[0],
                        level);
  } else {
    const float gain = j.chain.output_gain;
    const bool twice = j.chain.passes == kDigitalSum;
    const F second = sums[1] * F(gain), spread = variances[1] * F(gain * gain);
    F y = sums[0], variance = variances[0];
    if (!twice) {
      y = y + second;
      variance = variance + spread;
    }
    y = convert_once(j, line, y, variance, base, keys.noise[0], keys.rounding[0], level);
    if (twice)
      y = y + convert_once(j, line, second, spread, base, keys.noise[1], keys.rounding[1], level);
    return y;
  }
}

PL_DEVICE bool saturates(const ReadJob& j, float level) {
  return j.args.adc.bound > 0.0f && level >= j.args.adc.bound;
}

// Notes which rows of tiles sample b saturates, from levels of `count` outputs at most, o0 on.
template <int N>
PL_DEVICE void note_saturated(const ReadJob& j, const Floats<N>& level, int64_t count, int64_t o0,
                              int64_t b) {
  bool any = false;
#pragma unroll
  for (int v = 0; v < N; ++v) any = any || saturates(j, level.v[v]);
  if (!any) return;
  uint32_t which = 0;
#pragma unroll
  for (int v = 0; v < N; ++v) which |= saturates(j, level.v[v]) ? 1u << v : 0u;
#pragma unroll 1
  for (int v = 0; v < N && v < count; ++v)  // whoever comes writes the same
    if (which >> v & 1u) j.saturated[(o0 + v) / j.args.tile_out * j.args.batch + b] = 1;
}

PL_DEVICE float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }

// N neighbours in memory, `count` of them there: all in words of 16 bytes, or one by one.
template <int N, class T>
struct Neighbours {
  T* p;
  int64_t count;
  bool quads;
  PL_DEVICE Floats<N> load() const {
    if (!quads) return lanes_of<float, N>([&](int v) { return v < count ? p[v] : 0.0f; });
    Floats<N> r;
#pragma unroll
    for (int v = 0; v < N; v += 4) {
      const float4 four = load4(p + v);
      r.v[v] = four.x;
      r.v[v + 1] = four.y;
      r.v[v + 2] = four.z;
      r.v[v + 3] = four.w;
    }
    return r;
  }
  PL_DEVICE void store(const Floats<N>& x) const {
#pragma unroll
    for (int v = 0; v < N; v += 4)
      if (quads) *reinterpret_cast<float4*>(p + v) = {x.v[v], x.v[v + 1], x.v[v + 2], x.v[v + 3]};
    if (quads) return;
#pragma unroll
    for (int v = 0; v < N; ++v)
      if (v < count) p[v] = x.v[v];
  }
};

// Segments add up in order, as on the CPU.
template <class F>
PL_DEVICE F accumulate(F y, F converted, float scale, bool first) {
  return first ? converted * F(scale) : fma(converted, F(scale), y);
}

}  // namespace pulseline::cuda
