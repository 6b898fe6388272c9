// Module _cpu: raw pointers in, the GIL released, no torch header. What a tensor is, Python checks;
// settings and memory are checked here, see limits.h.
#include "cpu/cpu.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bind/chain.h"
#include "bind/checks.h"
#include "bind/transfer.h"
#include "bind/unfold.h"
#include "cpu/kernels.h"

namespace py = pybind11;
using namespace pulseline;

namespace {

using bind::pointer;

// device < 0: the ideal device. taps: of a dense matrix, see cpu/placed.h.
int64_t tile_update_tapped(uint64_t w, uint64_t step, uint64_t slope, uint64_t bound, uint64_t x,
                           uint64_t d, int64_t rows, int64_t cols, int64_t batch, double lr,
                           int device, const std::vector<float>& params,
                           const bind::PulseSettings& pulses, uint64_t counters,
                           const bind::UpdateKey& key, int threads, uint64_t fired, uint64_t taps,
                           int64_t tap_count, uint64_t tapped) {
  int64_t* counter = &pointer<bind::Counters>(counters)->update;
  const bind::UpdateAddresses at = {
      w, step, slope, bound, x, d, 0, fired, reinterpret_cast<uint64_t>(counter)};
  const bind::UpdateSizes sizes = {rows, cols, batch};
  bind::check_update(at, sizes, lr, pulses, key, params, device);
  if (tap_count) bind::check_tapped(at, sizes, key, device, taps, tap_count, tapped);
  cpu::PlacedUpdate a = {bind::update_args(lr, pulses), 0, 0, 0, 0};
  a.taps = {pointer<const int32_t>(taps), tap_count, pointer<float>(tapped)};
  a.w = pointer<float>(w);
  a.step = pointer<const uint32_t>(step);
  a.slope = pointer<const uint32_t>(slope);
  a.bound = pointer<const uint32_t>(bound);
  a.x = pointer<const float>(x);
  a.d = pointer<const float>(d);
  a.rows = rows;
  a.cols = cols;
  a.batch = batch;
  a.stream = bind::stream_of(key);
  a.stream.trains = bind::trains_of(key);
  a.k = uint64_t(*counter);
  a.fidelity = int32_t(key.fidelity);
  a.fired = pointer<int64_t>(fired);
  a.x_stride = cols * bind::blocks_of(rows, key);
  a.d_stride = rows;
  py::gil_scoped_release nogil;
  const cpu::Status s = device < 0 ? cpu::update_ideal(a, key.block_rows, threads)
                                   : cpu::update(a, device, params.data(), key.block_rows, threads);
  py::gil_scoped_acquire gil;
  if (s.source == 0) bind::advance(counter, batch);
  return bind::code_of(s.source, s.sample) - s.saturated;  // which nothing is if something is wrong
}

int64_t tile_update(uint64_t w, uint64_t step, uint64_t slope, uint64_t bound, uint64_t x,
                    uint64_t d, int64_t rows, int64_t cols, int64_t batch, double lr, int device,
                    const std::vector<float>& params, const bind::PulseSettings& pulses,
                    uint64_t counters, const bind::UpdateKey& key, int threads, uint64_t fired) {
  return tile_update_tapped(w, step, slope, bound, x, d, rows, cols, batch, lr, device, params,
                            pulses, counters, key, threads, fired, 0, 0, 0);
}

int64_t tile_read(uint64_t w, uint64_t x, uint64_t y, int64_t rows, int64_t cols, int64_t batch,
                  bool transposed, uint64_t counters, const bind::ReadKey& key,
                  const bind::ReadSettings& settings, int threads) {
  bind::check_plain(settings);
  const int64_t columns = cols * bind::blocks_of(rows, key), inputs = transposed ? rows : columns;
  bind::check_memory({bind::counters_at(counters)},
                     {{"weight", w, 4 * rows * cols}, {"x", x, 4 * batch * inputs}});
  cpu::PlacedRead a = {bind::read_args(key, settings), 0, 0, 0, 0};
  int64_t* counter = bind::counter_of(counters, key);
  a.k = uint64_t(*counter);
  a.w = pointer<const float>(w);
  a.x = pointer<const float>(x);
  a.y = pointer<float>(y);
  a.rows = rows;
  a.cols = cols;
  a.batch = batch;
  a.transposed = transposed;
  a.x_stride = inputs;
  a.y_stride = transposed ? columns : rows;
  py::gil_scoped_release nogil;
  const cpu::Status s = cpu::read(a, key.block_rows, threads);
  py::gil_scoped_acquire gil;
  if (s.source == 0) bind::advance(counter, batch);
  return bind::code_of(s.source, s.sample);
}

// What happens between pulses: see core/retention.h.
void bind_retention(py::module_& m) {
  m.def("construct_retention", [](const bind::RetentionSettings& settings, const bind::DrawKey& key,
                                  int64_t rows, int64_t cols, uint64_t words, int threads) {
    bind::blocks_of(rows, key);
    py::gil_scoped_release nogil;
    cpu::construct_retention(bind::retention_params(settings), bind::stream_of(key),
                             {0, rows, cols, key.block_rows}, pointer<uint32_t>(words), threads);
  });
  m.def("retain", [](uint64_t w, uint64_t step, uint64_t bound, uint64_t words, int64_t rows,
                     int64_t cols, bool reset, double amount, int64_t k, const bind::DrawKey& key,
                     int device, const std::vector<float>& params,
                     const bind::RetentionSettings& retention, int threads) {
    const RetentionArgs a =
        bind::retention_args({w, step, bound, words, rows, cols}, reset, amount, k, key);
    bind::blocks_of(rows, key);
    py::gil_scoped_release nogil;
    cpu::retain(a, {device, params.data(), bind::retention_params(retention)}, key.block_rows,
                threads);
  });
  m.def("disturb", [](uint64_t hidden, uint64_t step, uint64_t visible, int64_t rows, int64_t cols,
                      double deviation, uint64_t counters, const bind::DrawKey& key, int device,
                      const std::vector<float>& params, int threads) {
    bind::check_disturb(hidden, step, visible, rows * cols, deviation, counters);
    bind::blocks_of(rows, key);
    py::gil_scoped_release nogil;
    cpu::disturb({pointer<const float>(hidden),
                  pointer<const uint32_t>(step),
                  pointer<float>(visible),
                  float(deviation),
                  {device, params.data(), {}}},
                 {0, rows, cols, key.block_rows}, bind::stream_of(key),
                 uint64_t(pointer<const bind::Counters>(counters)->update), threads);
  });
  m.def("redraw", [](uint64_t hidden, uint64_t step, uint64_t visible, uint64_t x, uint64_t d,
                     int64_t rows, int64_t cols, int64_t batch, double lr, double deviation,
                     const bind::PulseSettings& pulses, uint64_t counters,
                     const bind::UpdateKey& key, int device, const std::vector<float>& params,
                     int threads) {
    const int64_t* counter = &pointer<const bind::Counters>(counters)->update;
    bind::check_redraw({visible, step, step, step, x, d, 0, 0, reinterpret_cast<uint64_t>(counter)},
                       {rows, cols, batch}, lr, pulses, key, hidden, deviation);
    cpu::PlacedUpdate a = {bind::update_args(lr, pulses), 0, 0, 0, 0};
    a.w = pointer<float>(visible);
    a.step = pointer<const uint32_t>(step);
    a.x = pointer<const float>(x);
    a.d = pointer<const float>(d);
    a.rows = rows;
    a.cols = cols;
    a.batch = batch;
    a.stream = bind::stream_of(key);
    a.stream.trains = bind::trains_of(key);
    a.fidelity = int32_t(key.fidelity);
    a.k = uint64_t(*counter) - uint64_t(batch);  // before the update
    a.x_stride = cols * bind::blocks_of(rows, key);
    a.d_stride = rows;
    py::gil_scoped_release nogil;
    const cpu::Written cells = {
        pointer<const float>(hidden), a.step, a.w, float(deviation), {device, params.data(), {}}};
    const cpu::Status s = cpu::redraw(a, cells, key.block_rows, threads);
    return bind::code_of(s.source, s.sample);
  });
}

// Scalar routines of csrc/core, for known-answer tests.
void bind_core(py::module_ m) {
  m.def("philox", [](std::vector<uint32_t> key, std::vector<uint32_t> counter) {
    const Philox4 r = philox4x32(key.at(0), key.at(1), counter.at(0), counter.at(1), counter.at(2),
                                 counter.at(3));
    return std::vector<uint32_t>(r.v, r.v + 4);
  });
  m.def("draw", [](uint64_t seed, uint32_t tile, uint32_t purpose, uint64_t k, uint32_t index,
                   uint32_t draw) {
    const Philox4 r = draw4({seed, tile}, purpose, k, index, draw);
    return std::vector<uint32_t>(r.v, r.v + 4);
  });
  m.def("hash",
        py::vectorize([](uint32_t base, uint32_t k0, uint32_t k1) { return hash(base, k0, k1); }));
  m.def("fma", py::vectorize([](float a, float b, float c) { return pulseline::fma(a, b, c); }));
  m.def("exp2", py::vectorize([](float x) { return exp2_poly(x); }));
  m.def("log", py::vectorize([](float x) { return log_poly(x); }));
  m.def("power", py::vectorize([](float x, float p) { return power_poly(x, p); }));
  m.def("cycle_normal", py::vectorize([](uint32_t row, uint32_t column, uint32_t k0, uint32_t k1) {
          return cycle_normal(row, column, {k0, k1});
        }));
  m.def("rank_sum",
        [](uint64_t seed, uint32_t tile, uint64_t k, uint32_t row, uint32_t column, uint32_t draw) {
          return rank_sum(draw4({seed, tile}, kRowRank, k, row, draw),
                          draw4({seed, tile}, kColumnRank, k, column, draw));
        });
  m.def("byte_sum_normal", py::vectorize([](uint32_t h) { return byte_sum_normal(h); }));
  m.def("train_word",
        py::vectorize([](uint32_t p16, uint32_t index, uint32_t k0, uint32_t k1, int bl) {
          return train_word(p16, index * kColumnStride, {k0, k1}, bl);
        }));
  m.def("manage", [](double lr, const bind::PulseSettings& s, float x_max, float d_max) {
    const Train r = manage_train(bind::train_config(lr, s), x_max, d_max);
    return py::make_tuple(r.bl, r.scale_x, r.scale_d);
  });
}

}  // namespace

PYBIND11_MODULE(_cpu, m, py::mod_gil_not_used()) {
  m.doc() = "Compiled CPU kernels. Pointers in; no torch headers. Used by pulseline.ops alone.";
  m.attr("NUMBERING") = kNumbering;
  m.attr("LAYOUT") = bind::layout();
  py::list devices;
#define PULSELINE_DESCRIBE(D) \
  devices.append(py::make_tuple(D::kName, D::kFields, D::kAffine, D::kSlopes));
  PULSELINE_DEVICES(PULSELINE_DESCRIBE)
#undef PULSELINE_DESCRIBE
  m.attr("DEVICES") = devices;
  m.attr("PURPOSES") =
      py::dict(py::arg("forward") = int(kForwardOutput), py::arg("backward") = int(kBackwardOutput),
               py::arg("evaluation") = int(kEvaluationOutput));
  m.def("isa", [] { return std::string(cpu::table().isa); });
  m.def("isas", [] {
    std::vector<std::string> names;
#define PULSELINE_NAME(isa) #isa,
    for (const char* name : {PULSELINE_TABLES(PULSELINE_NAME)})
      if (const cpu::KernelTable* t = cpu::find_table(name); t && t->isa == std::string(name))
        names.push_back(name);
#undef PULSELINE_NAME
    return names;
  });
  m.def("use_isa", [](const std::string& isa) { return cpu::use_table(isa.c_str()); });
  m.def("is_finite", [](uint64_t values, int64_t count) {
    py::gil_scoped_release nogil;
    return cpu::is_finite(pointer<const float>(values), count);
  });
  m.def("update", &tile_update);
  m.def("update_tapped", &tile_update_tapped);
  m.def("check_taps", [](uint64_t taps, int64_t count, int64_t batch, int64_t cols) {
    bind::check_taps(pointer<const int32_t>(taps), count, batch, cols);
  });
  m.def("read", &tile_read);
  bind_chain(m);
  bind_unfold(m);
  bind_transfer(m);
  // What a launch on a GPU will be refused for, asked before it waits for others.
  m.def("check_update",
        [](const bind::UpdateAddresses& at, const bind::UpdateSizes& n, const bind::UpdateKey& key,
           double lr, const bind::PulseSettings& pulses, const std::vector<float>& params,
           int device) { bind::check_update(at, n, lr, pulses, key, params, device); });
  m.def("check_tapped", &bind::check_tapped);
  m.def("check_redraw",
        [](const bind::UpdateAddresses& at, const bind::UpdateSizes& n, const bind::UpdateKey& key,
           double lr, const bind::PulseSettings& pulses, const std::vector<float>&, uint64_t hidden,
           double deviation) { bind::check_redraw(at, n, lr, pulses, key, hidden, deviation); });
  m.def("check_key", [](const bind::DrawKey&) {});
  // Rows from `first` on; slope: 0: left out.
  m.def("construct",
        [](int device, const std::vector<float>& params, const bind::DrawKey& key, int64_t first,
           int64_t rows, int64_t cols, uint64_t step, uint64_t slope, uint64_t bound, int threads) {
          bind::check_params(params);
          py::gil_scoped_release nogil;
          cpu::construct(device, params.data(), bind::stream_of(key),
                         {first, rows, cols, key.block_rows}, pointer<uint32_t>(step),
                         pointer<uint32_t>(slope), pointer<uint32_t>(bound), threads);
        });
  m.def("initial_normals", [](const bind::DrawKey& key, int64_t first, int64_t rows, int64_t cols,
                              uint64_t out, int threads) {
    py::gil_scoped_release nogil;
    cpu::initial_normals(bind::stream_of(key), {first, rows, cols, key.block_rows},
                         pointer<float>(out), threads);
  });
  bind_retention(m);
  bind_core(m.def_submodule("core", "Scalar routines for known-answer tests."));
}
