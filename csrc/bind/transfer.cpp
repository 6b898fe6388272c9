// What algorithms of several arrays need beside reads and updates: counted pulses, converters on
// values that are there, uniform numbers of single draws. Pointers in, the GIL released; tensors
// are checked in Python.
#include "bind/transfer.h"

#include <pybind11/stl.h>

#include "bind/checks.h"
#include "cpu/cpu.h"

namespace py = pybind11;

namespace pulseline {
namespace {

using bind::pointer;

// device < 0: the ideal one, whose params are its granularity. visible: 0: the device has no write
// noise.
void pulse_counted(const bind::CountedAddresses& at, int64_t rows, int64_t cols, int64_t count,
                   int64_t number, int device, const std::vector<float>& params, double deviation,
                   const bind::UpdateKey& key, int threads) {
  const cpu::CountedLines lines = {pointer<const int32_t>(at.columns),
                                   pointer<const float>(at.counts), count};
  bind::check_counted(at, {rows, cols, count}, number, device, params, deviation, key);
  std::vector<float> most(size_t(count) + 16);
  if (!cpu::counts_whole(lines, rows, most.data())) bind::refuse_counts(lines.counts, rows, count);
  cpu::PlacedUpdate a = {{}, 0, 0, 0, 0};
  a.w = pointer<float>(at.w);
  a.step = pointer<const uint32_t>(at.step);
  a.slope = pointer<const uint32_t>(at.slope);
  a.bound = pointer<const uint32_t>(at.bound);
  a.rows = rows;
  a.cols = cols;
  a.stream = bind::stream_of(key);
  a.k = uint64_t(number);
  a.fidelity = int32_t(key.fidelity);
  py::gil_scoped_release nogil;
  if (at.fired) cpu::count_fired(lines, rows, most.data(), pointer<int64_t>(at.fired));
  if (device < 0) return cpu::pulse_ideal(a, lines, params.at(0));
  cpu::pulse_counted(a, lines, most.data(), device, params.data(), threads);
  if (!at.visible) return;
  const cpu::Written cells = {
      a.w, a.step, pointer<float>(at.visible), float(deviation), {device, params.data(), {}}};
  cpu::rewrite(a, lines, cells, threads);
}

void convert_columns(uint64_t values, uint64_t out, int64_t rows, int64_t count, int64_t number,
                     const bind::DrawKey& key, const bind::ReadSettings& settings,
                     const bind::ConverterSettings& converters, int threads) {
  bind::check_transfer(settings, converters, number);
  bind::check_memory({{"out", out, 4 * rows * count}}, {{"values", values, 4 * rows * count}});
  cpu::PlacedRead a = {bind::transfer_args(key, settings), 0, 0, 0, 0};
  a.w = pointer<const float>(values);
  a.y = pointer<float>(out);
  a.rows = rows;
  a.batch = count;
  a.k = uint64_t(number);
  const Chain chain = bind::transfer_chain(a, converters);
  py::gil_scoped_release nogil;
  cpu::convert(a, chain, threads);
}

// Columns from `column` on.
void count_columns(const bind::CountAddresses& at, int64_t rows, int64_t cols, int64_t column,
                   int64_t count, const bind::CountSettings& s, int threads) {
  const int64_t size = 4 * rows * cols, part = 4 * rows * count;
  const bool none = !at.mean && !at.rho;
  if (column < 0 || count < 0 || column > cols - count)
    bind::refuse("columns " + std::to_string(column) + " to " + std::to_string(column + count) +
                 " are counted of " + std::to_string(cols) + "; use those that there are");
  bind::check_memory(
      {{"held", at.held, size}, {"mean", at.mean, size, none}, {"pulses", at.pulses, part}},
      {{"rho", at.rho, size, none},
       {"values", at.values, part},
       {"sign_columns", at.sign_columns, 4 * cols},
       {"sign_rows", at.sign_rows, 4 * rows, true}});
  const cpu::Buffered b = {pointer<float>(at.held),
                           pointer<float>(at.mean),
                           pointer<const float>(at.rho),
                           pointer<const float>(at.values),
                           pointer<const float>(at.sign_columns),
                           pointer<const float>(at.sign_rows),
                           pointer<float>(at.pulses),
                           rows,
                           cols,
                           column,
                           count,
                           float(s.rate),
                           float(s.max_pulses),
                           float(1.0 - s.leak),
                           float(s.momentum),
                           float(1.0 - s.momentum),
                           float(s.beta),
                           s.forget != 0};
  py::gil_scoped_release nogil;
  cpu::count_buffered(b, threads);
}

}  // namespace

void bind_transfer(py::module_ m) {
  m.attr("DRAWS") =
      py::dict(py::arg("transfer") = int(kTransferOutput),
               py::arg("transfer_rounding") = int(kTransferRounding),
               py::arg("counted_pulses") = int(kCountedPulses), py::arg("chopper") = int(kChopper),
               py::arg("column_choice") = int(kColumnChoice));
  m.attr("MOST_COUNTED") = kMostCounted;
  m.def("pulse_counted", &pulse_counted);
  m.def("check_counted",
        [](const bind::CountedAddresses& at, int64_t rows, int64_t cols, int64_t count,
           int64_t number, int device, const std::vector<float>& params, double deviation,
           const bind::UpdateKey& key) {
          bind::check_counted(at, {rows, cols, count}, number, device, params, deviation, key);
        });
  m.def("convert", &convert_columns);
  m.def("count_columns", &count_columns);
  // [0, 1) of the first word of draws; numbers, indices: [count].
  m.def("uniforms", [](const bind::DrawKey& key, uint32_t purpose, uint64_t numbers,
                       uint64_t indices, uint32_t draw, int64_t count, uint64_t out) {
    const auto* k = pointer<const int64_t>(numbers);
    const auto* index = pointer<const int64_t>(indices);
    auto* u = pointer<float>(out);
    py::gil_scoped_release nogil;
    for (int64_t n = 0; n < count; ++n)
      u[n] = uniform24(
          draw4(bind::stream_of(key), purpose, uint64_t(k[n]), uint32_t(index[n]), draw).v[0]);
  });
}

}  // namespace pulseline
