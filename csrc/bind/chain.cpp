// Reads with options: see core/chain.h. Pointers in, the GIL released; checks live in ops.py.
#include "bind/chain.h"

#include <pybind11/stl.h>

#include <vector>

#include "bind/read_args.h"
#include "cpu/cpu.h"
#include "cpu/irdrop.h"

namespace py = pybind11;

namespace pulseline {
namespace {

// io and chain: see read_args.h.
py::tuple tile_read_chain(uint64_t w, uint64_t x, uint64_t y, uint64_t average, int64_t rows,
                          int64_t cols, int64_t batch, bool transposed, int64_t tile_in,
                          int64_t tile_out, uint64_t seed, uint32_t tile, uint64_t k,
                          uint32_t purpose, const std::vector<float>& io,
                          const std::vector<double>& chain, int threads) {
  ReadArgs a = bind::read_args({rows, cols, batch, transposed, tile_in, tile_out},
                               {seed, tile, k, purpose}, io);
  a.w = reinterpret_cast<const float*>(w);
  a.x = reinterpret_cast<const float*>(x);
  a.y = reinterpret_cast<float*>(y);
  const Chain c = bind::chain_args(a, chain, reinterpret_cast<float*>(average));
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
