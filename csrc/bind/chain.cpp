// Reads with options: see core/chain.h. Pointers in, the GIL released; tensors are checked in
// Python.
#include "bind/chain.h"

#include "bind/checks.h"
#include "cpu/cpu.h"
#include "cpu/wires.h"

namespace py = pybind11;

namespace pulseline {
namespace {

int64_t tile_read_chain(uint64_t w, uint64_t x, uint64_t y, uint64_t average, int64_t rows,
                        int64_t cols, int64_t batch, bool transposed, uint64_t counters,
                        const bind::ReadKey& key, const bind::ReadSettings& settings,
                        const bind::ConverterSettings& converters, int threads) {
  bind::check_chain(settings, converters);
  const int64_t blocks = bind::blocks_of(rows, key), columns = cols * blocks;
  bind::check_chain_blocks(settings, converters, blocks);
  const int64_t inputs = transposed ? rows : columns;
  bind::check_memory({bind::counters_at(counters), {"average", average, 4, true}},
                     {{"weight", w, 4 * rows * cols}, {"x", x, 4 * batch * inputs}});
  cpu::PlacedRead a = {bind::read_args(key, settings), 0, 0, 0, 0};
  int64_t* counter = bind::counter_of(counters, key);
  a.k = uint64_t(*counter);
  a.w = bind::pointer<const float>(w);
  a.x = bind::pointer<const float>(x);
  a.y = bind::pointer<float>(y);
  a.rows = rows;
  a.cols = cols;
  a.batch = batch;
  a.transposed = transposed;
  a.x_stride = inputs;
  a.y_stride = transposed ? columns : rows;
  const Chain c = bind::chain_args(a, converters, bind::pointer<float>(average));
  py::gil_scoped_release nogil;
  const cpu::Status s = cpu::read_chain(a, c, key.block_rows, threads);
  py::gil_scoped_acquire gil;
  if (s.source == cpu::kUnsolved)
    bind::refuse("ir_tolerance is " + bind::text(converters.ir_tolerance) +
                 ", which the nodal equations do not reach; use a larger one");
  if (s.source == 0) bind::advance(counter, batch);
  return bind::code_of(s.source, s.sample);
}

}  // namespace

void bind_chain(py::module_ m) {
  m.def("read_chain", &tile_read_chain);
  m.def("check_wires", [](double r, double tolerance) {
    bind::check_amount("resistance", r, bind::kNormal);
    bind::check_amount("tolerance", tolerance, bind::kTolerance);
  });
  // y = currents of one tile with wires; returns the CG iterations.
  m.def("wire_currents", [](uint64_t w, int64_t rows, int64_t cols, bool transposed, double r,
                            double tolerance, uint64_t q, int64_t samples, uint64_t y) {
    bind::check_memory(
        {}, {{"weight", w, 4 * rows * cols}, {"q", q, 4 * samples * (transposed ? rows : cols)}});
    const cpu::WireSolver solver(bind::pointer<const float>(w), rows, cols, cols, transposed, r,
                                 tolerance);
    const int most = solver.solve(bind::pointer<const float>(q), transposed ? rows : cols, samples,
                                  bind::pointer<float>(y), transposed ? cols : rows);
    if (most > kMostIterations)
      bind::refuse("tolerance is " + bind::text(tolerance) +
                   ", which the nodal equations do not reach; use a larger one");
    return most;
  });
}

}  // namespace pulseline
