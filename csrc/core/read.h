#pragma once
// What one line of a read does; equations in chain.h and args.h. Lines are outputs or inputs of the
// logical matrix, `base` = line * kColumnStride. F is float or a SIMD vector, U the words beside
// it.
#include "core/chain.h"

namespace pulseline {

template <class U>
PL_HD auto line_normal(U base, Keys key) {
  return byte_sum_polynomial(byte_sum(hash(base, key.k0, key.k1)));
}

template <class F, class U>
PL_HD F convert_line(const Converter& c, F v, bool stochastic, U base, Keys key) {
  return stochastic ? convert_stochastic(c, v, uniform24(hash(base, key.k0, key.k1)))
                    : convert(c, v);
}

// An input behind its DAC; alpha_beta: noise management times bound management.
template <class F, class U>
PL_HD F input_level(const ReadArgs& a, const Chain& chain, F x, float alpha_beta, U base,
                    Keys rounding) {
  return convert_line(a.dac, x / F(alpha_beta), chain.input_stochastic != 0, base, rounding);
}
// What the line carries in a pass of one or of two.
template <class F, class U>
PL_HD F input_pass(const ReadArgs& a, const Chain& chain, F level, int pass, int passes, U base,
                   Keys noise) {
  F q = level;
  if (passes == 2) q = pass == 0 ? max(level, F(0.0f)) : min(level, F(0.0f)) * F(chain.input_gain);
  return a.input_noise > 0.0f ? fma(F(a.input_noise), line_normal(base, noise), q) : q;
}

// A sum with its noise, and bent: what the ADC sees. variance: of the weights over weight_noise^2.
// bends: whether outputs are non-linear.
template <class F, class U>
PL_HD F output_level(const ReadArgs& a, F y, F variance, F deviation, bool bends, F bend, U base,
                     Keys noise) {
  if (a.weight_noise > 0.0f)
    deviation =
        square_root(fma(F(a.weight_noise * a.weight_noise), variance, deviation * deviation));
  if (a.output_noise > 0.0f || a.weight_noise > 0.0f)
    y = fma(deviation, line_normal(base, noise), y);
  return bends ? y / (F(1.0f) + bend * absolute(y)) : y;
}

// An ADC's own noise and non-linearity, drawn once: the same for training and evaluation.
struct OutputLine {
  float noise, bend;
};
PL_HD OutputLine output_line(const ReadArgs& a, const Chain& chain, int64_t segment,
                             int64_t output) {
  if (!(chain.output_noise_std > 0.0f) && !(chain.nonlinearity > 0.0f))
    return {a.output_noise, 0.0f};
  const uint64_t k = uint64_t(segment << 1 | (a.transposed ? 1 : 0));
  const Philox4 r = draw4(a.stream, kReadLines, k, uint32_t(output), 0);
  return {
      chain.output_noise_std > 0.0f
          ? absolute(a.output_noise * fma(chain.output_noise_std, byte_sum_normal(r.v[0]), 1.0f))
          : a.output_noise,
      absolute(chain.nonlinearity * fma(chain.nonlinearity_std, byte_sum_normal(r.v[1]), 1.0f))};
}

// Keys of a sample's draws in one pass and round: noise of inputs (`line`: row block) or outputs
// (segment), and of stochastic rounding.
PL_HD Keys input_keys(const ReadArgs& a, int64_t sample, int64_t block, int pass, int round) {
  return draw_keys(a.stream, a.input_purpose, first_number(a) + uint64_t(sample),
                   uint32_t(block << 4 | round) | (pass ? kSecondPass : 0u));
}
PL_HD Keys output_keys(const ReadArgs& a, int64_t sample, int64_t segment, int pass, int round) {
  return draw_keys(a.stream, a.output_purpose, first_number(a) + uint64_t(sample),
                   uint32_t(segment << 4 | round) | (pass ? kSecondPass : 0u));
}
PL_HD Keys rounding_keys(const ReadArgs& a, const Chain& chain, int64_t sample, int64_t line,
                         int side, int pass, int round) {
  return draw_keys(a.stream, chain.rounding_purpose, first_number(a) + uint64_t(sample),
                   rounding_draw(line, side, pass, round));
}

// As a row block, of the draws of a line that is driven alone (one-hot reads).
constexpr int64_t kDrivenLine = 1;

// Noise management: alpha from the largest magnitude; `average` is the running average of kAverage
// and moves if the chain says so.
PL_HD float manage_input(const ReadArgs& a, const Chain& chain, float largest, float& average) {
  float alpha = largest;
  if (a.noise_management == kNoManagement) return 1.0f;
  if (a.noise_management == kConstant) return chain.threshold;
  if (a.noise_management == kAverage) {
    const bool first = !(average > 0.0f);
    if (chain.advance) average = first ? alpha : fma(chain.decay, alpha - average, average);
    if (chain.advance || !first) alpha = average;
  }
  return chain.threshold > 0.0f ? min(alpha, chain.threshold) : alpha;
}

}  // namespace pulseline
