// One-hot reads of values that are there: the converters of core/chain.h behind a single line that
// carries 1. Nothing else is driven, so that an output is one crosspoint's: y = ADC(w q + noise),
// q = 1 + inp_noise xi. Outputs are rows; a read's values are a column, its number keys its draws.
#include <algorithm>

#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"

namespace pulseline::cpu {
namespace {

constexpr int64_t kColumns = 16;  // taken together, so that rows are read by the cache line

struct Workspace {
  float *values, *sums[2], *squares[2], *converted;  // [kColumns][stride], [stride] ..
};

struct Transfer {
  const PlacedRead& a;  // of reads from number a.k on; w: [rows][batch] values, y: results
  const Chain& chain;
  int64_t stride;
  int passes;
  float *line_noise, *line_bend;  // [rows]; nullptr: as in args.h
};

void convert_column(const Transfer& p, int64_t t, const float* values, Workspace& work) {
  const PlacedRead& a = p.a;
  ChainOutput job = {};
  job.args = &a;
  job.chain = &p.chain;
  job.line_noise = p.line_noise;
  job.line_bend = p.line_bend;
  job.converted = work.converted;
  job.outputs = a.rows;
  job.passes = p.passes;
  for (int pass = 0; pass < p.passes; ++pass) {
    const Keys driven = a.input_noise > 0.0f ? input_keys(a, t, kDrivenLine, pass, 0) : Keys{0, 0};
    const float q = input_pass(a, p.chain, 1.0f, pass, p.passes, 0u, driven);
    for (int64_t i = 0; i < a.rows; ++i) work.sums[pass][i] = values[i] * q;
    for (int64_t i = 0; p.chain.pcm && i < a.rows; ++i)
      work.squares[pass][i] = absolute(values[i]) * (q * q);
    job.sums[pass] = work.sums[pass];
    job.squares[pass] = p.chain.pcm ? work.squares[pass] : nullptr;
    job.norm[pass] = q * q;
    if (a.output_noise > 0.0f || a.weight_noise > 0.0f)
      job.noise[pass] = output_keys(a, t, 0, pass, 0);
    if (p.chain.output_stochastic) job.rounding[pass] = rounding_keys(a, p.chain, t, 0, 1, pass, 0);
  }
  table().chain_output(job);
}

void convert_columns(const Transfer& p, int64_t t0, int64_t t1, Workspace& work) {
  const PlacedRead& a = p.a;
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t t = t0; t < t1; ++t) work.values[(t - t0) * p.stride + i] = a.w[i * a.batch + t];
  for (int64_t t = t0; t < t1; ++t) {
    float* values = work.values + (t - t0) * p.stride;
    convert_column(p, t, values, work);
    std::copy_n(work.converted, a.rows, values);
  }
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t t = t0; t < t1; ++t) a.y[i * a.batch + t] = work.values[(t - t0) * p.stride + i];
}

}  // namespace

void convert(const PlacedRead& a, const Chain& chain, int threads) {
  if (a.rows == 0 || a.batch == 0) return;
  Scratch& scratch = Scratch::of_thread();
  Transfer p = {a,       chain,  (a.rows + 15) / 16 * 16 + 16, chain.passes == kOnePass ? 1 : 2,
                nullptr, nullptr};
  if (chain.output_noise_std > 0.0f) p.line_noise = scratch.take<float>(a.rows);
  if (chain.nonlinearity > 0.0f) p.line_bend = scratch.take<float>(a.rows);
  for (int64_t i = 0; (p.line_noise || p.line_bend) && i < a.rows; ++i) {
    const OutputLine line = output_line(a, chain, 0, i);
    if (p.line_noise) p.line_noise[i] = line.noise;
    if (p.line_bend) p.line_bend[i] = line.bend;
  }
  if (a.rows * a.batch < kSerialCrosspoints / 8) threads = 1;
  Workspace* works = scratch.take<Workspace>(threads);
  for (int n = 0; n < threads; ++n) {
    works[n].values = scratch.take<float>(kColumns * p.stride);
    works[n].converted = scratch.take<float>(p.stride);
    for (int pass = 0; pass < p.passes; ++pass) {
      works[n].sums[pass] = scratch.take<float>(p.stride);
      works[n].squares[pass] = scratch.take<float>(p.stride);
    }
  }
  parallel_chunks(a.batch, kColumns, threads, [&](int64_t t0, int64_t t1) {
    for (int64_t t = t0; t < t1; t += kColumns)
      convert_columns(p, t, std::min(t + kColumns, t1), works[thread_index()]);
  });
}

}  // namespace pulseline::cpu
