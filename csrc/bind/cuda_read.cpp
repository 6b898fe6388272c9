// The read on the GPU: device pointers, the number of the GPU and a stream in. Checks and the
// products are Python's.
#include "bind/checks.h"
#include "bind/cuda.h"
#include "cuda/read.h"

namespace py = pybind11;

namespace pulseline::bind {
namespace {

using cuda::ReadJob;
using Addresses = std::array<uint64_t, 2>;  // per pass

ReadJob make_read(int64_t rows, int64_t cols, int64_t batch, bool transposed, uint64_t counters,
                  const ReadKey& key, const ReadSettings& settings,
                  const ConverterSettings& converters, uint64_t average) {
  check_chain(settings, converters);
  ReadArgs a = read_args(key, settings);
  if (counters) a.counter = counter_of(counters, key);
  a.rows = rows;
  a.cols = cols;
  a.batch = batch;
  a.transposed = transposed;
  return cuda::read_job(a, chain_args(a, converters, pointer<float>(average)));
}

void place(ReadJob& j, uint64_t w, uint64_t x, uint64_t y, uint64_t alpha, const Addresses& q,
           const Addresses& square, const Addresses& norm, uint64_t saturated) {
  const int64_t weights = 4 * j.args.rows * j.args.cols, inputs = 4 * j.args.batch * j.inputs;
  check_memory({{"average", reinterpret_cast<uint64_t>(j.chain.average), 4, true},
                {"counters", reinterpret_cast<uint64_t>(j.args.counter), 8, true}},
               {{"weight", w, weights}, {"x", x, inputs}});
  j.args.w = pointer<const float>(w);
  j.args.x = pointer<const float>(x);
  j.args.y = pointer<float>(y);
  j.alpha = pointer<float>(alpha);
  j.saturated = pointer<uint8_t>(saturated);
  for (size_t pass = 0; pass < 2; ++pass) {
    j.q[pass] = pointer<float>(q[pass]);
    j.square[pass] = pointer<float>(square[pass]);
    j.norm[pass] = pointer<float>(norm[pass]);
  }
}

void output(const ReadJob& j, int64_t segment, int64_t out0, int64_t out1, const Addresses& sums,
            const Addresses& squares, int gpu, uint64_t stream) {
  PL_CHECK(cudaSetDevice(gpu));
  cuda::ReadSums s = {};
  s.segment = segment;
  s.out0 = out0;
  s.out1 = out1;
  for (size_t pass = 0; pass < 2; ++pass) {
    s.sums[pass] = pointer<const float>(sums[pass]);
    s.squares[pass] = pointer<const float>(squares[pass]);
  }
  PL_CHECK(cuda::launch_read_output(j, s, cuda_stream(stream)));
}

}  // namespace

void bind_read(py::module_& m) {
  py::class_<ReadJob>(m, "Read")
      .def(py::init(&make_read))
      .def_readonly("inputs", &ReadJob::inputs)
      .def_readonly("outputs", &ReadJob::outputs)
      .def_readonly("segments", &ReadJob::segments)
      .def_readonly("blocks", &ReadJob::blocks)
      .def_readonly("passes", &ReadJob::passes)
      .def_property_readonly("pcm", [](const ReadJob& j) { return j.chain.pcm != 0; })
      .def_property_readonly("fusable", [](const ReadJob& j) { return cuda::can_fuse(j); })
      .def_property_readonly("repeats", [](const ReadJob& j) { return j.args.max_rounds > 0; })
      // Whether row blocks draw their inputs anew.
      .def_property_readonly("block_inputs",
                             [](const ReadJob& j) {
                               return j.args.input_noise > 0.0f || j.chain.input_stochastic != 0;
                             })
      .def_property_readonly("wired",
                             [](const ReadJob& j) { return j.chain.ir_drop == kApproximate; })
      .def_property_readonly("nodal", [](const ReadJob& j) { return j.chain.ir_drop == kNodal; })
      .def("place", &place)
      .def("advance",
           [](const ReadJob& j, int gpu, uint64_t stream) {
             PL_CHECK(cudaSetDevice(gpu));
             PL_CHECK(cuda::launch_read_advance(j, cuda_stream(stream)));
           })
      .def_property_readonly("largest_tile",
                             [](const ReadJob& j) {
                               const cuda::NodalPlan p = cuda::nodal_plan(j, 0, 0);
                               return p.inputs * p.outputs;
                             })
      // Wires that are solved: bytes of memory it takes, and the read; see nodal_plan.
      .def("nodal_bytes", [](const ReadJob& j, int64_t blocks,
                             int64_t memory) { return cuda::nodal_plan(j, blocks, memory).bytes; })
      .def(
          "solve",
          [](const ReadJob& j, int64_t blocks, int64_t memory, uint64_t address, int gpu,
             uint64_t stream) {
            PL_CHECK(cudaSetDevice(gpu));
            const cuda::NodalPlan plan = cuda::nodal_plan(j, blocks, memory);
            PL_CHECK(cuda::launch_read_nodal(j, plan, pointer<void>(address), cuda_stream(stream)));
          })
      // word and bit: [2][rows][cols]; level: [2][tile rows][cols]; end: [2][rows][tile columns];
      // float64. effective: [rows][cols], what is read from now on.
      .def("wires",
           [](ReadJob& j, uint64_t word, uint64_t bit, uint64_t level, uint64_t end,
              uint64_t effective, int gpu, uint64_t stream) {
             PL_CHECK(cudaSetDevice(gpu));
             const cuda::Wires w = {pointer<double>(word), pointer<double>(bit),
                                    pointer<double>(level), pointer<double>(end),
                                    pointer<float>(effective)};
             PL_CHECK(cuda::launch_read_wires(j, w, cuda_stream(stream)));
             j.effective = w.effective;
           })
      .def("input",
           [](const ReadJob& j, int64_t block, int gpu, uint64_t stream) {
             PL_CHECK(cudaSetDevice(gpu));
             PL_CHECK(cuda::launch_read_input(j, block, cuda_stream(stream)));
           })
      .def("output", &output)
      // Products and outputs of all segments, out0..out1, of a fusable read.
      .def("fused",
           [](const ReadJob& j, int64_t out0, int64_t out1, int gpu, uint64_t stream) {
             PL_CHECK(cudaSetDevice(gpu));
             PL_CHECK(cuda::launch_read_fused(j, out0, out1, cuda_stream(stream)));
           })
      .def("repeat", [](const ReadJob& j, uint64_t converted, int gpu, uint64_t stream) {
        PL_CHECK(cudaSetDevice(gpu));
        PL_CHECK(cuda::launch_read_repeat(j, pointer<float>(converted), cuda_stream(stream)));
      });
}

}  // namespace pulseline::bind
