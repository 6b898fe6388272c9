// Counted pulses: n signed pulses on single crosspoints, whatever asked for them. A line is a
// column of the matrix, its number keys what it draws; 31 pulses are joined (exact) or each is one
// of its own (strict), `each` at a time. Loops: counted.inl.
#include <algorithm>
#include <vector>

#include "cpu/slices.h"

namespace pulseline::cpu {
namespace {

constexpr int64_t kDraws = 32;  // of every line, whose keys are held at once

// Lines whose columns are neighbours.
std::vector<CountedRun> runs_of(const CountedLines& lines) {
  std::vector<CountedRun> runs;
  for (int64_t t = 0; t < lines.count; ++t) {
    const int64_t column = lines.columns[t];
    if (!runs.empty() && runs.back().column + runs.back().count == column)
      ++runs.back().count;
    else
      runs.push_back({column, t, 1});
  }
  return runs;
}

// The draw field of the n-th `each` pulses.
uint32_t draw_of(int64_t n, bool strict) {
  if (!strict) return uint32_t(n);
  return uint32_t(n / kSlotsPerWord) << 5 | uint32_t(n % kSlotsPerWord);
}

void draw_line_keys(const PlacedUpdate& a, const CountedJob& job, const float* most,
                    uint32_t* const out[2]) {
  for (int64_t q = 0; q < job.draws; ++q)
    for (int64_t t = 0; t < job.lines; ++t) {
      if (most[t] <= float((job.first + q) * job.each)) continue;
      const Keys key = draw_keys(a.stream, kCountedPulses, a.k + uint64_t(t),
                                 draw_of(job.first + q, a.fidelity == kStrict));
      out[0][q * job.stride + t] = key.k0;
      out[1][q * job.stride + t] = key.k1;
    }
}

}  // namespace

bool counts_whole(const CountedLines& lines, int64_t rows, float* most) {
  std::fill_n(most, lines.count, 0.0f);
  return table().counts_whole(lines.counts, lines.count, 0, rows, most);
}

void count_fired(const CountedLines& lines, int64_t rows, const float* most, int64_t* fired) {
  for (int64_t n = 0; n < rows * lines.count; ++n) fired[0] += int64_t(absolute(lines.counts[n]));
  for (int64_t t = 0; t < lines.count; ++t) fired[1] += int64_t(most[t]);
}

void pulse_counted(const PlacedUpdate& a, const CountedLines& lines, const float* most, int device,
                   const float* params, int threads) {
  if (a.rows == 0 || lines.count == 0) return;
  const int64_t largest = int64_t(*std::max_element(most, most + lines.count));
  if (largest == 0) return;
  const bool strict = a.fidelity == kStrict;
  Scratch& scratch = Scratch::of_thread();
  const AnyDevice model(device, params);
  ParameterKeys drawn = {};
  CountedJob job = {};
  job.cells.args = &a;
  if (!a.step) {
    drawn = parameter_keys(a.stream);
    job.cells.drawn = &drawn;
  }
  const std::vector<CountedRun> runs = runs_of(lines);
  job.runs = runs.data();
  job.run_count = int64_t(runs.size());
  job.counts = lines.counts;
  job.lines = lines.count;
  job.each = strict ? 1 : kSlotsPerWord;
  job.noisy = a.fidelity != kExpected;
  job.stride = (lines.count + 15) / 16 * 16 + 16;
  const int64_t draws = (largest + job.each - 1) / job.each, held = std::min(draws, kDraws);
  uint32_t* keys[2] = {scratch.take<uint32_t>(held * job.stride),
                       scratch.take<uint32_t>(held * job.stride)};
  job.keys[0] = keys[0];
  job.keys[1] = keys[1];
  if (a.rows * lines.count < kSerialCrosspoints / 8) threads = 1;  // 5 ns a crosspoint and more
  for (job.first = 0; job.first < draws; job.first += held) {
    job.draws = std::min(held, draws - job.first);
    if (job.noisy) draw_line_keys(a, job, most, keys);
    parallel_chunks(a.rows, kRowChunk, threads, [&](int64_t r0, int64_t r1) {
      table().counted[device](job, model.bytes, r0, r1);
    });
  }
}

void pulse_ideal(const PlacedUpdate& a, const CountedLines& lines, float granularity) {
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t t = 0; t < lines.count; ++t) {
      const float n = lines.counts[i * lines.count + t];
      float& w = a.w[i * a.cols + lines.columns[t]];
      if (n != 0.0f) w = (w + n * granularity) + 0.0f;
    }
}

}  // namespace pulseline::cpu
