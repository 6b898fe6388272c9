// The read with options: physical tile by physical tile, round by round, runs of samples shared
// among threads. Products are read_panel's with every converter off, or the nodal solve of
// wires.cpp; a sample's result depends on nothing but itself.
#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/threads.h"
#include "cpu/wires.h"

namespace pulseline::cpu {
namespace {

constexpr uint32_t kInfinity = 0x7f800000u;
constexpr int64_t kRun = 64;  // most samples handled together

struct Tile {  // outputs of a row block, inputs of a segment
  int64_t block, segment, out0, out1, in0, in1;
};

struct ChainPlan {
  const ReadArgs* a;
  const Chain* chain;
  int64_t inputs, outputs, segments, blocks, width, stride;  // width: of a row block, padded
  int passes;
  std::vector<float> alpha;
  std::vector<float> line_noise, line_bend;          // [segments][outputs]
  std::vector<float> wires, magnitudes;              // effective weights; |w|
  std::vector<std::unique_ptr<WireSolver>> solvers;  // [blocks][segments]
};

// What one thread works in.
struct Workspace {
  explicit Workspace(const ChainPlan& p, int64_t run)
      : sums(size_t(run * 64)), packed(size_t(kPackedInputs * 64)), result(size_t(p.width)) {
    for (int pass = 0; pass < p.passes; ++pass) {
      q[pass].resize(size_t(run * p.stride));
      product[pass].resize(size_t(run * p.width));
      if (!p.chain->pcm) continue;
      square[pass].resize(size_t(run * p.stride));
      variance[pass].resize(size_t(run * p.width));
    }
    norm.resize(size_t(run * 2));
    sample.resize(size_t(run));
  }
  std::vector<float> q[2], square[2], product[2], variance[2], sums, packed, result, norm;
  std::vector<int64_t> sample;
};

int64_t count_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

// alpha of every sample, in order; the running average last.
Status manage(ChainPlan& p) {
  const ReadArgs& a = *p.a;
  const Chain& chain = *p.chain;
  p.alpha.resize(size_t(a.batch));
  float average = chain.average ? *chain.average : 0.0f;
  for (int64_t b = 0; b < a.batch; ++b) {
    const uint32_t bits = table().absmax(a.x + b * p.inputs, p.inputs);
    if (bits >= kInfinity) return {1, b};
    p.alpha[size_t(b)] = manage_input(a, chain, as_float(bits), average);
  }
  if (a.noise_management == kAverage && chain.advance) *chain.average = average;
  return {};
}

// Every ADC's own noise and non-linearity: the same for training and evaluation.
void draw_lines(ChainPlan& p) {
  const ReadArgs& a = *p.a;
  const Chain& chain = *p.chain;
  const size_t count = size_t(p.segments * p.outputs);
  if (chain.output_noise_std > 0.0f) p.line_noise.resize(count);
  if (chain.nonlinearity > 0.0f) p.line_bend.resize(count);
  if (p.line_noise.empty() && p.line_bend.empty()) return;
  for (int64_t s = 0; s < p.segments; ++s)
    for (int64_t o = 0; o < p.outputs; ++o) {
      const OutputLine line = output_line(a, chain, s, o);
      const size_t i = size_t(s * p.outputs + o);
      if (!p.line_noise.empty()) p.line_noise[i] = line.noise;
      if (!p.line_bend.empty()) p.line_bend[i] = line.bend;
    }
}

void wire(ChainPlan& p) {
  const ReadArgs& a = *p.a;
  const Chain& chain = *p.chain;
  if (chain.pcm) {
    p.magnitudes.resize(size_t(a.rows * a.cols));
    for (int64_t i = 0; i < a.rows * a.cols; ++i) p.magnitudes[size_t(i)] = absolute(a.w[i]);
  }
  if (chain.ir_drop == kNoDrop) return;
  if (chain.ir_drop == kApproximate) p.wires.resize(size_t(a.rows * a.cols));
  if (chain.ir_drop == kNodal) p.solvers.resize(size_t(p.blocks * p.segments));
  for (int64_t block = 0; block < p.blocks; ++block)
    for (int64_t s = 0; s < p.segments; ++s) {
      const int64_t o = block * a.tile_out, i = s * a.tile_in;
      const int64_t outs = std::min(a.tile_out, p.outputs - o),
                    ins = std::min(a.tile_in, p.inputs - i);
      const int64_t row = a.transposed ? i : o, col = a.transposed ? o : i;
      const int64_t rows = a.transposed ? ins : outs, cols = a.transposed ? outs : ins;
      const float* w = a.w + row * a.cols + col;
      if (chain.ir_drop == kApproximate)
        approximate_wires(w, rows, cols, a.cols, chain.wire_resistance,
                          p.wires.data() + row * a.cols + col);
      else
        p.solvers[size_t(block * p.segments + s)] = std::make_unique<WireSolver>(
            w, rows, cols, a.cols, a.transposed, chain.wire_resistance, chain.tolerance);
    }
}

// sums[samples][width] = w q over one tile, nothing but the product.
void multiply(const ChainPlan& p, const float* w, const Tile& t, const float* q, int64_t samples,
              float* result, Workspace& work) {
  ReadArgs bare = {};
  bare.rows = p.a->rows;
  bare.cols = p.a->cols;
  bare.transposed = p.a->transposed;
  bare.w = bare.transposed ? w + t.out0 : w + t.out0 * bare.cols;  // outputs count from the block
  const std::vector<float> one(size_t(samples), 1.0f), zero(size_t(samples), 0.0f);
  const std::vector<Keys> keys(size_t(samples), Keys{0, 0});
  const int64_t panel = table().panel, width = t.out1 - t.out0;
  for (int64_t o = 0; o < width; o += panel) {
    ReadPanel r = {};
    r.args = &bare;
    r.input = q;
    r.stride = p.stride;
    r.samples = samples;
    r.in0 = t.in0;
    r.in1 = t.in1;
    r.out0 = o;
    r.out1 = std::min(o + panel, width);
    r.scale = one.data();
    r.deviation = zero.data();
    r.keys = keys.data();
    r.y = result;
    r.y_stride = p.width;
    r.first = true;
    r.sums = work.sums.data();
    r.packed = work.packed.data();
    table().read_panel(r);
  }
}

void convert_inputs(const ChainPlan& p, const Tile& t, int64_t count, int round, Workspace& work) {
  const ReadArgs& a = *p.a;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t b = work.sample[size_t(i)];
    ChainInput job = {};
    job.args = &a;
    job.chain = p.chain;
    job.x = a.x + b * p.inputs;
    job.alpha_beta = p.alpha[size_t(b)] * float(1 << round);
    job.in0 = t.in0;
    job.in1 = t.in1;
    job.passes = p.passes;
    for (int pass = 0; pass < p.passes; ++pass) {
      job.q[pass] = work.q[pass].data() + i * p.stride;
      if (p.chain->pcm) job.square[pass] = work.square[pass].data() + i * p.stride;
      if (a.input_noise > 0.0f) job.noise[pass] = input_keys(a, b, t.block, pass, round);
    }
    if (p.chain->input_stochastic)
      job.rounding = rounding_keys(a, *p.chain, b, t.block, 0, 0, round);
    table().chain_input(job);
    for (int pass = 0; pass < 2; ++pass) work.norm[size_t(2 * i + pass)] = job.norm[pass];
  }
}

// Sample i of the run through the ADCs and into y; true: saturated and to be repeated.
bool convert_outputs(const ChainPlan& p, const Tile& t, int64_t i, int round, Workspace& work) {
  const ReadArgs& a = *p.a;
  const int64_t b = work.sample[size_t(i)], line = t.segment * p.outputs + t.out0;
  ChainOutput job = {};
  job.args = &a;
  job.chain = p.chain;
  if (!p.line_noise.empty()) job.line_noise = p.line_noise.data() + line;
  if (!p.line_bend.empty()) job.line_bend = p.line_bend.data() + line;
  job.converted = work.result.data();
  job.out0 = t.out0;
  job.outputs = t.out1 - t.out0;
  job.passes = p.passes;
  for (int pass = 0; pass < p.passes; ++pass) {
    job.sums[pass] = work.product[pass].data() + i * p.width;
    if (p.chain->pcm) job.squares[pass] = work.variance[pass].data() + i * p.width;
    job.norm[pass] = work.norm[size_t(2 * i + pass)];
    if (a.output_noise > 0.0f || a.weight_noise > 0.0f)
      job.noise[pass] = output_keys(a, b, t.segment, pass, round);
    if (p.chain->output_stochastic)
      job.rounding[pass] = rounding_keys(a, *p.chain, b, t.segment, 1, pass, round);
  }
  if (table().chain_output(job) && round < a.max_rounds) return true;
  const float scale = (p.alpha[size_t(b)] * float(1 << round)) * a.out_scale;
  table().chain_add(a.y + b * p.outputs + t.out0, job.converted, scale, job.outputs,
                    t.segment == 0);
  return false;
}

// Bound management: saturated samples again with beta doubled and fresh draws.
void read_tile(const ChainPlan& p, const Tile& t, int64_t b0, int64_t b1, Workspace& work) {
  int64_t count = 0;
  for (int64_t b = b0; b < b1; ++b) {
    if (p.alpha[size_t(b)] > 0.0f)
      work.sample[size_t(count++)] = b;
    else if (t.segment == 0)
      std::fill_n(p.a->y + b * p.outputs + t.out0, t.out1 - t.out0, 0.0f);
  }
  const float* w = p.wires.empty() ? p.a->w : p.wires.data();
  for (int round = 0; count > 0; ++round) {
    convert_inputs(p, t, count, round, work);
    for (int pass = 0; pass < p.passes; ++pass) {
      float* result = work.product[pass].data();
      const float* q = work.q[pass].data();
      if (p.solvers.empty())
        multiply(p, w, t, q, count, result, work);
      else
        p.solvers[size_t(t.block * p.segments + t.segment)]->solve(q + t.in0, p.stride, count,
                                                                   result, p.width);
      if (p.chain->pcm)
        multiply(p, p.magnitudes.data(), t, work.square[pass].data(), count,
                 work.variance[pass].data(), work);
    }
    int64_t left = 0;
    for (int64_t i = 0; i < count; ++i)
      if (convert_outputs(p, t, i, round, work))
        work.sample[size_t(left++)] = work.sample[size_t(i)];
    count = left;
  }
}

void read_run(const ChainPlan& p, int64_t b0, int64_t b1, Workspace& work) {
  const ReadArgs& a = *p.a;
  for (int64_t block = 0; block < p.blocks; ++block)
    for (int64_t s = 0; s < p.segments; ++s) {
      const int64_t out0 = block * a.tile_out, in0 = s * a.tile_in;
      const Tile t = {block, s,
                      out0,  std::min(out0 + a.tile_out, p.outputs),
                      in0,   std::min(in0 + a.tile_in, p.inputs)};
      read_tile(p, t, b0, b1, work);
    }
}

}  // namespace

Status read_chain(const ReadArgs& a, const Chain& chain, int threads) {
  ChainPlan p = {};
  p.a = &a;
  p.chain = &chain;
  p.inputs = a.transposed ? a.rows : a.cols;
  p.outputs = a.transposed ? a.cols : a.rows;
  if (a.batch == 0 || p.outputs == 0) return {};
  if (p.inputs == 0) {
    std::fill_n(a.y, a.batch * p.outputs, 0.0f);
    return {};
  }
  p.segments = count_of(p.inputs, a.tile_in);
  p.blocks = count_of(p.outputs, a.tile_out);
  p.width = std::min(a.tile_out, p.outputs) + 16;
  p.stride = (p.inputs + 15) / 16 * 16 + 16;
  p.passes = chain.passes == kOnePass ? 1 : 2;
  const Status status = manage(p);
  if (status.source) return status;
  draw_lines(p);
  wire(p);
  const int64_t run = std::min(kRun, threads > 1 ? count_of(a.batch, threads) : a.batch);
  const int64_t runs = count_of(a.batch, run);
#pragma omp parallel num_threads(threads) if (threads > 1 && runs > 1)
  {
    Workspace work(p, run);
#pragma omp for schedule(dynamic, 1)
    for (int64_t n = 0; n < runs; ++n) read_run(p, n * run, std::min((n + 1) * run, a.batch), work);
  }
  return {};
}

}  // namespace pulseline::cpu
