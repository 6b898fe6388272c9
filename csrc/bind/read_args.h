#pragma once
// Python's lists as the argument structs of a read, for every backend.
#include <vector>

#include "core/chain.h"

namespace pulseline::bind {

struct Matrix {
  int64_t rows, cols, batch;
  bool transposed;
  int64_t tile_in, tile_out;
};
struct Draws {
  uint64_t seed;
  uint32_t tile;
  uint64_t k;
  uint32_t purpose;
};

// io: inp_bound, inp_res, inp_noise, out_bound, out_res, out_noise, w_noise, out_scale,
// noise_management, max_rounds. Pointers are the caller's to set.
inline ReadArgs read_args(const Matrix& m, const Draws& d, const std::vector<float>& io) {
  ReadArgs a = {};
  a.rows = m.rows;
  a.cols = m.cols;
  a.batch = m.batch;
  a.transposed = m.transposed;
  a.tile_in = m.tile_in;
  a.tile_out = m.tile_out;
  a.stream = {d.seed, d.tile};
  a.k = d.k;
  a.output_purpose = d.purpose;
  a.input_purpose = d.purpose + 1;
  a.dac = make_converter(io.at(1), io.at(0));
  a.input_noise = io.at(2);
  a.adc = make_converter(io.at(4), io.at(3));
  a.output_noise = io.at(5);
  a.weight_noise = io.at(6);
  a.out_scale = io.at(7);
  a.noise_management = int32_t(io.at(8));
  a.max_rounds = a.adc.bound > 0.0f ? int32_t(io.at(9)) : 0;
  return a;
}

// chain: nm_thres, nm_decay, advance, inp_sto_round, out_sto_round, passes, input gain, output
// gain, pcm, out_noise_std, non-linearity, its spread, ir_drop, wire_resistance, tolerance. Empty:
// a read without options.
inline Chain chain_args(const ReadArgs& a, const std::vector<double>& chain, float* average) {
  Chain c = {};
  c.rounding_purpose = kForwardRounding + (a.output_purpose == kForwardOutput    ? 0
                                           : a.output_purpose == kBackwardOutput ? 1
                                                                                 : 2);
  if (chain.empty()) return c;
  c.threshold = float(chain.at(0));
  c.decay = float(chain.at(1));
  c.average = average;
  c.advance = chain.at(2) != 0 && average;
  c.input_stochastic = chain.at(3) != 0;
  c.output_stochastic = chain.at(4) != 0;
  c.passes = int32_t(chain.at(5));
  c.input_gain = float(chain.at(6));
  c.output_gain = float(chain.at(7));
  c.pcm = chain.at(8) != 0 && a.weight_noise > 0.0f;
  c.output_noise_std = float(chain.at(9));
  c.nonlinearity = float(chain.at(10));
  c.nonlinearity_std = float(chain.at(11));
  c.ir_drop = int32_t(chain.at(12));
  c.wire_resistance = chain.at(13);
  c.tolerance = chain.at(14);
  return c;
}

}  // namespace pulseline::bind
