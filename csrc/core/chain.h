#pragma once
// Options of a read beyond args.h: what the converters, the lines and the wires of a tile add.
//
//   q  = clip(round(x / (alpha beta) / s_in) s_in) ; two passes: max(q, 0) and g_in min(q, 0)
//   y  = W q (+ noise) ; two passes: positive pass + g_out negative pass, before or after the ADC
//   y <- y / (1 + n_i |y|)                         n_i = nonlinearity (1 + spread xi) / out_bound
// Stochastic rounding: up with the probability of the remainder. Output i of a tile adds noise of
// its own size out_noise |1 + spread xi|.
#include "core/args.h"

namespace pulseline {

enum NoiseManagement : int32_t { kNoManagement = 0, kAbsMax = 1, kConstant = 2, kAverage = 3 };
enum Passes : int32_t { kOnePass = 0, kAnalogSum = 1, kDigitalSum = 2 };
enum IrDrop : int32_t { kNoDrop = 0, kApproximate = 1, kNodal = 2 };

struct Chain {
  float threshold;  // constant: alpha; else its upper limit if > 0
  float decay;      // average: a += decay (max|x| - a), sample by sample
  float* average;   // [1] a, <= 0: none yet
  int32_t advance;  // average: write it back
  int32_t input_stochastic, output_stochastic;
  int32_t passes;
  float input_gain, output_gain;  // of the pass of negative inputs
  int32_t pcm;                    // weight noise^2 = w_noise^2 sum |w| q^2, else w_noise^2 |q|^2
  float output_noise_std;
  float nonlinearity, nonlinearity_std;  // n_i in units of 1 / weight
  int32_t ir_drop;
  double wire_resistance, tolerance;  // of a wire segment, times the conductance of weight 1
  uint32_t rounding_purpose;
};

// Bits of a draw beside segment or row block: see rng.h.
constexpr uint32_t kSecondPass = 1u << 23;
PL_HD uint32_t rounding_draw(int64_t line_block, int side, int pass, int round) {
  return uint32_t(line_block << 6 | side << 5 | pass << 4 | round);
}

}  // namespace pulseline
