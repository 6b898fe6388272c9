// The read with options: physical tile by physical tile, round by round, runs of samples shared
// among threads. Products are read_panel's with every converter off, or the nodal solve of
// wires.cpp; a sample's result depends on nothing but itself.
//
// Without options the bits are those of read.cpp, which stays for its speed: there converters take
// the sums out of registers, here all sums of a tile are stored first. On one thread (AVX-512,
// median of paired ratios of processor time, perfect and default converters) this read takes 1.03
// to 1.11 of the time at 512 x 512 and 1 to 64 samples, 1.13 at 64 x 64 and one sample, 1.27 at 64
// samples. And one sample on two threads shares its outputs there, nothing here.
#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/blocks.h"
#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"
#include "cpu/tiles.h"
#include "cpu/wires.h"

namespace pulseline::cpu {
namespace {

constexpr int64_t kRun = 64;  // most samples handled together

struct Tile {  // outputs of a row block, inputs of a segment
  int64_t block, segment, out0, out1, in0, in1;
};

struct ChainPlan {
  const PlacedRead* a;
  const Chain* chain;
  int64_t inputs, outputs, segments, blocks, width, stride;  // width: of a row block, padded
  Tiles in, out;                                             // segments and blocks
  int passes;
  float* alpha;                                      // [batch]
  float average;                                     // after the last sample
  float *line_noise, *line_bend;                     // [segments][outputs]; nullptr: as in args.h
  float *wires, *magnitudes;                         // effective weights; |w|; nullptr: not asked
  std::vector<std::unique_ptr<WireSolver>> solvers;  // [blocks][segments]
};

// What one thread works in, for `run` samples at a time.
struct Workspace {
  float *q[2], *square[2], *product[2], *variance[2];  // per pass
  float *sums, *packed, *result, *norm;
  float *one, *zero;  // [run] of products without converters
  Keys* keys;
  int64_t* sample;
  bool unsolved;  // the nodal equations of a tile did not converge
};
Workspace make_workspace(const ChainPlan& p, int64_t run, Scratch& scratch) {
  Workspace w = {};
  for (int pass = 0; pass < p.passes; ++pass) {
    w.q[pass] = scratch.take<float>(run * p.stride);
    w.product[pass] = scratch.take<float>(run * p.width);
    if (!p.chain->pcm) continue;
    w.square[pass] = scratch.take<float>(run * p.stride);
    w.variance[pass] = scratch.take<float>(run * p.width);
  }
  w.sums = scratch.take<float>(run * table().panel);
  w.packed = scratch.take<float>(kPackedInputs * table().panel);
  w.result = scratch.take<float>(p.width);
  w.norm = scratch.take<float>(run * 2);
  w.one = scratch.take<float>(run);
  w.zero = scratch.take<float>(run);
  w.keys = scratch.take<Keys>(run);
  w.sample = scratch.take<int64_t>(run);
  std::fill_n(w.one, run, 1.0f);
  std::fill_n(w.zero, run, 0.0f);
  std::fill_n(w.keys, run, Keys{0, 0});
  return w;
}

int64_t count_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

// alpha of every sample, in order; the running average last.
Status manage_inputs(ChainPlan& p) {
  const PlacedRead& a = *p.a;
  const Chain& chain = *p.chain;
  float average = chain.average ? *chain.average : 0.0f;
  for (int64_t b = 0; b < a.batch; ++b) {
    const uint32_t bits = table().absmax(a.x + b * a.x_stride, p.inputs);
    if (bits >= kInfinity) return {1, b};
    p.alpha[b] = manage_input(a, chain, as_float(bits), average);
  }
  p.average = average;
  return {};
}

// Every ADC's own noise and non-linearity: the same for training and evaluation.
void draw_lines(ChainPlan& p, Scratch& scratch) {
  const PlacedRead& a = *p.a;
  const Chain& chain = *p.chain;
  const int64_t count = p.segments * p.outputs;
  if (chain.output_noise_std > 0.0f) p.line_noise = scratch.take<float>(count);
  if (chain.nonlinearity > 0.0f) p.line_bend = scratch.take<float>(count);
  if (!p.line_noise && !p.line_bend) return;
  for (int64_t s = 0; s < p.segments; ++s)
    for (int64_t o = 0; o < p.outputs; ++o) {
      const OutputLine line = output_line(a, chain, p.in.index(s), a.output0 + o);
      const int64_t i = s * p.outputs + o;
      if (p.line_noise) p.line_noise[i] = line.noise;
      if (p.line_bend) p.line_bend[i] = line.bend;
    }
}

void wire(ChainPlan& p, Scratch& scratch) {
  const PlacedRead& a = *p.a;
  const Chain& chain = *p.chain;
  if (chain.pcm) {
    p.magnitudes = scratch.take<float>(a.rows * a.cols);
    for (int64_t i = 0; i < a.rows * a.cols; ++i) p.magnitudes[i] = absolute(a.w[i]);
  }
  if (chain.ir_drop == kNoDrop) return;
  if (chain.ir_drop == kApproximate) p.wires = scratch.take<float>(a.rows * a.cols);
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
                          p.wires + row * a.cols + col);
      else
        p.solvers[size_t(block * p.segments + s)] = std::make_unique<WireSolver>(
            w, rows, cols, a.cols, a.transposed, chain.wire_resistance, chain.tolerance);
    }
}

// sums[samples][width] = w q over one tile, nothing but the product.
void multiply(const ChainPlan& p, const float* w, const Tile& t, const float* q, int64_t samples,
              float* result, Workspace& work) {
  PlacedRead bare = {};
  bare.rows = p.a->rows;
  bare.cols = p.a->cols;
  bare.transposed = p.a->transposed;
  bare.w = bare.transposed ? w + t.out0 : w + t.out0 * bare.cols;  // outputs count from the block
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
    r.scale = work.one;
    r.deviation = work.zero;
    r.keys = work.keys;
    r.y = result;
    r.y_stride = p.width;
    r.first = true;
    r.sums = work.sums;
    r.packed = work.packed;
    table().read_panel(r);
  }
}

void convert_inputs(const ChainPlan& p, const Tile& t, int64_t count, int round, Workspace& work) {
  const PlacedRead& a = *p.a;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t b = work.sample[i];
    ChainInput job = {};
    job.args = &a;
    job.chain = p.chain;
    job.x = a.x + b * a.x_stride;
    job.alpha_beta = p.alpha[b] * float(1 << round);
    job.in0 = t.in0;
    job.in1 = t.in1;
    job.passes = p.passes;
    for (int pass = 0; pass < p.passes; ++pass) {
      job.q[pass] = work.q[pass] + i * p.stride;
      if (p.chain->pcm) job.square[pass] = work.square[pass] + i * p.stride;
      if (a.input_noise > 0.0f)
        job.noise[pass] = input_keys(a, b, p.out.index(t.block), pass, round);
    }
    if (p.chain->input_stochastic)
      job.rounding = rounding_keys(a, *p.chain, b, p.out.index(t.block), 0, 0, round);
    table().chain_input(job);
    for (int pass = 0; pass < 2; ++pass) work.norm[2 * i + pass] = job.norm[pass];
  }
}

// Sample i of the run through the ADCs and into y; true: saturated and to be repeated.
bool convert_outputs(const ChainPlan& p, const Tile& t, int64_t i, int round, Workspace& work) {
  const PlacedRead& a = *p.a;
  const int64_t b = work.sample[i], line = t.segment * p.outputs + t.out0;
  ChainOutput job = {};
  job.args = &a;
  job.chain = p.chain;
  if (p.line_noise) job.line_noise = p.line_noise + line;
  if (p.line_bend) job.line_bend = p.line_bend + line;
  job.converted = work.result;
  job.out0 = t.out0;
  job.outputs = t.out1 - t.out0;
  job.passes = p.passes;
  for (int pass = 0; pass < p.passes; ++pass) {
    job.sums[pass] = work.product[pass] + i * p.width;
    if (p.chain->pcm) job.squares[pass] = work.variance[pass] + i * p.width;
    job.norm[pass] = work.norm[2 * i + pass];
    if (a.output_noise > 0.0f || a.weight_noise > 0.0f)
      job.noise[pass] = output_keys(a, b, p.in.index(t.segment), pass, round);
    if (p.chain->output_stochastic)
      job.rounding[pass] = rounding_keys(a, *p.chain, b, p.in.index(t.segment), 1, pass, round);
  }
  if (table().chain_output(job) && round < a.max_rounds) return true;
  const float scale = (p.alpha[b] * float(1 << round)) * a.out_scale;
  table().chain_add(a.y + b * a.y_stride + t.out0, job.converted, scale, job.outputs,
                    t.segment == 0);
  return false;
}

// Bound management: saturated samples again with beta doubled and fresh draws.
void read_tile(const ChainPlan& p, const Tile& t, int64_t b0, int64_t b1, Workspace& work) {
  int64_t count = 0;
  for (int64_t b = b0; b < b1; ++b) {
    if (p.alpha[b] > 0.0f)
      work.sample[count++] = b;
    else if (t.segment == 0)
      std::fill_n(p.a->y + b * p.a->y_stride + t.out0, t.out1 - t.out0, 0.0f);
  }
  const float* w = p.wires ? p.wires : p.a->w;
  for (int round = 0; count > 0; ++round) {
    convert_inputs(p, t, count, round, work);
    for (int pass = 0; pass < p.passes; ++pass) {
      float* result = work.product[pass];
      const float* q = work.q[pass];
      if (p.solvers.empty())
        multiply(p, w, t, q, count, result, work);
      else
        work.unsolved |= p.solvers[size_t(t.block * p.segments + t.segment)]->solve(
                             q + t.in0, p.stride, count, result, p.width) > kMostIterations;
      if (p.chain->pcm)
        multiply(p, p.magnitudes, t, work.square[pass], count, work.variance[pass], work);
    }
    int64_t left = 0;
    for (int64_t i = 0; i < count; ++i)
      if (convert_outputs(p, t, i, round, work)) work.sample[left++] = work.sample[i];
    count = left;
  }
}

void read_run(const ChainPlan& p, int64_t b0, int64_t b1, Workspace& work) {
  for (int64_t block = 0; block < p.blocks; ++block)
    for (int64_t s = 0; s < p.segments; ++s) {
      const Tile t = {block, s, p.out.begin(block), p.out.end(block), p.in.begin(s), p.in.end(s)};
      read_tile(p, t, b0, b1, work);
    }
}

Status read_chain_block(const PlacedRead& a, const Chain& chain, int threads) {
  ChainPlan p = {};
  p.a = &a;
  p.chain = &chain;
  p.inputs = a.transposed ? a.rows : a.cols;
  p.outputs = a.transposed ? a.cols : a.rows;
  if (a.batch == 0 || p.outputs == 0) return {};
  if (p.inputs == 0) {
    for (int64_t b = 0; b < a.batch; ++b) std::fill_n(a.y + b * a.y_stride, p.outputs, 0.0f);
    return {};
  }
  p.in = {a.input0, p.inputs, a.tile_in};
  p.out = {a.output0, p.outputs, a.tile_out};
  p.segments = p.in.count();
  p.blocks = p.out.count();
  p.width = std::min(a.tile_out, p.outputs) + 16;
  p.stride = (p.inputs + 15) / 16 * 16 + 16;
  p.passes = chain.passes == kOnePass ? 1 : 2;
  if (a.rows * a.cols * a.batch < kSerialCrosspoints) threads = 1;
  Scratch& scratch = Scratch::of_thread();
  p.alpha = scratch.take<float>(a.batch);
  const Status status = manage_inputs(p);
  if (status.source) return status;
  draw_lines(p, scratch);
  wire(p, scratch);
  const int64_t run = std::min(kRun, threads > 1 ? count_of(a.batch, threads) : a.batch);
  const int64_t runs = count_of(a.batch, run);
  threads = int(std::min(int64_t(threads), runs));
  Workspace* works = scratch.take<Workspace>(threads);
  for (int i = 0; i < threads; ++i) works[i] = make_workspace(p, run, scratch);
  Thrown thrown;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1)
  for (int64_t n = 0; n < runs; ++n)
    thrown.run([&] {  // nodal solves allocate
      read_run(p, n * run, std::min((n + 1) * run, a.batch), works[thread_index()]);
    });
  thrown.rethrow();
  for (int i = 0; i < threads; ++i)
    if (works[i].unsolved) return {kUnsolved, 0};
  if (a.noise_management == kAverage && chain.advance) *chain.average = p.average;
  return {};
}

}  // namespace

Status read_chain(const PlacedRead& a, const Chain& chain, int64_t block_rows, int threads) {
  return over_blocks(a, block_rows, threads, [&](const PlacedRead& block, int n) {
    return read_chain_block(block, chain, n);
  });
}

}  // namespace pulseline::cpu
