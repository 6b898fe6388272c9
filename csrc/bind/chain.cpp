// Reads with options: see core/chain.h. Pointers in, the GIL released; checks live in ops.py.
#include "bind/chain.h"

#include <pybind11/stl.h>

#include <vector>

#include "cpu/cpu.h"
#include "cpu/irdrop.h"

namespace py = pybind11;

namespace pulseline {
namespace {

// chain: nm_thres, nm_decay, advance, inp_sto_round, out_sto_round, passes, input gain, output
// gain, pcm, out_noise_std, non-linearity, its spread, ir_drop, wire_resistance, tolerance.
py::tuple tile_read_chain(uint64_t w, uint64_t x, uint64_t y, uint64_t average, int64_t rows,
                          int64_t cols, int64_t batch, bool transposed, int64_t tile_in,
                          int64_t tile_out, uint64_t seed, uint32_t tile, uint64_t k,
                          uint32_t purpose, const std::vector<float>& io,
                          const std::vector<double>& chain, int threads) {
  ReadArgs a = {};
  a.w = reinterpret_cast<const float*>(w);
  a.x = reinterpret_cast<const float*>(x);
  a.y = reinterpret_cast<float*>(y);
  a.rows = rows;
  a.cols = cols;
  a.batch = batch;
  a.transposed = transposed;
  a.tile_in = tile_in;
  a.tile_out = tile_out;
  a.stream = {seed, tile};
  a.k = k;
  a.output_purpose = purpose;
  a.input_purpose = purpose + 1;
  a.dac = make_converter(io.at(1), io.at(0));
  a.input_noise = io.at(2);
  a.adc = make_converter(io.at(4), io.at(3));
  a.output_noise = io.at(5);
  a.weight_noise = io.at(6);
  a.out_scale = io.at(7);
  a.noise_management = int32_t(io.at(8));
  a.max_rounds = a.adc.bound > 0.0f ? int32_t(io.at(9)) : 0;
  Chain c = {};
  c.threshold = float(chain.at(0));
  c.decay = float(chain.at(1));
  c.average = reinterpret_cast<float*>(average);
  c.advance = chain.at(2) != 0 && c.average;
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
  c.rounding_purpose = kForwardRounding + (purpose == kForwardOutput    ? 0
                                           : purpose == kBackwardOutput ? 1
                                                                        : 2);
  py::gil_scoped_release nogil;
  const cpu::Status s = cpu::read_chain(a, c, threads);
  py::gil_scoped_acquire gil;
  return py::make_tuple(s.source, s.sample);
}

}  // namespace

void bind_chain(py::module_ m) {
  m.def("read_chain", &tile_read_chain);
  // y = currents of one tile with wires; returns the CG iterations.
  m.def("wire_currents", [](uint64_t w, int64_t rows, int64_t cols, bool transposed, double r,
                            double tolerance, uint64_t q, int64_t samples, uint64_t y) {
    const cpu::WireSolver solver(reinterpret_cast<const float*>(w), rows, cols, cols, transposed, r,
                                 tolerance);
    return solver.solve(reinterpret_cast<const float*>(q), transposed ? rows : cols, samples,
                        reinterpret_cast<float*>(y), transposed ? cols : rows);
  });
}

}  // namespace pulseline
