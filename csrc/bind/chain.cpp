// Reads with options: see core/chain.h. Pointers in, the GIL released; checks live in Python.
#include "bind/chain.h"

#include "bind/layout.h"
#include "cpu/cpu.h"
#include "cpu/wires.h"

namespace py = pybind11;

namespace pulseline {
namespace {

int64_t tile_read_chain(uint64_t w, uint64_t x, uint64_t y, uint64_t average, int64_t rows,
                        int64_t cols, int64_t batch, bool transposed, uint64_t counters,
                        const bind::ReadKey& key, const bind::ReadSettings& settings,
                        const bind::ConverterSettings& converters, int threads) {
  ReadArgs a = bind::read_args(key, settings);
  int64_t* counter = bind::counter_of(counters, key);
  a.k = uint64_t(*counter);
  a.w = bind::pointer<const float>(w);
  a.x = bind::pointer<const float>(x);
  a.y = bind::pointer<float>(y);
  a.rows = rows;
  a.cols = cols;
  a.batch = batch;
  a.transposed = transposed;
  const Chain c = bind::chain_args(a, converters, bind::pointer<float>(average));
  py::gil_scoped_release nogil;
  const cpu::Status s = cpu::read_chain(a, c, threads);
  py::gil_scoped_acquire gil;
  if (s.source == 0) *counter += batch;
  return bind::code_of(s.source, s.sample);
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
