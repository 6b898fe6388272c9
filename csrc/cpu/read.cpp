// The read of one call without options: checks, noise management, DACs, panels of outputs, and the
// samples that bound management repeats. Why chain.cpp does not do it too: see there.
#include <cstring>

#include "cpu/blocks.h"
#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"
#include "cpu/tiles.h"

namespace pulseline::cpu {
namespace {

struct Plan {
  const PlacedRead* a;
  int64_t inputs, outputs, segments, blocks, stride;
  Tiles in, out;                             // segments and blocks
  float *alpha, *scale, *deviation, *input;  // [batch] [batch] [segments][batch] [batch][stride]
  Keys* keys;                                // [segments][batch]
  uint8_t* saturated;                        // [blocks][batch]
};

int64_t count_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

Status manage_inputs(const Plan& p) {
  const PlacedRead& a = *p.a;
  for (int64_t b = 0; b < a.batch; ++b) {
    const uint32_t bits = table().absmax(a.x + b * a.x_stride, p.inputs);
    if (bits >= kInfinity) return {1, b};
    p.alpha[b] = a.noise_management ? as_float(bits) : 1.0f;
  }
  return {};
}

// DACs of sample b for one row block and bound-management round, into q and deviation.
void convert_input(const Plan& p, int64_t b, int64_t block, int round, float* q, float* deviation,
                   int64_t deviation_stride) {
  const PlacedRead& a = *p.a;
  if (p.alpha[b] == 0.0f) {
    std::memset(q, 0, size_t(p.inputs) * sizeof(float));
    for (int64_t s = 0; s < p.segments; ++s) deviation[s * deviation_stride] = 0.0f;
    return;
  }
  Keys noise = {0, 0};
  if (a.input_noise > 0.0f) noise = input_keys(a, b, p.out.index(block), 0, round);
  table().prepare_input({&a, a.x + b * a.x_stride, q, p.alpha[b] * float(1 << round), noise,
                         deviation, deviation_stride});
}

ReadPanel panel_of(const Plan& p, int64_t segment, int64_t out0, int64_t out1, float* sums,
                   float* packed) {
  const PlacedRead& a = *p.a;
  ReadPanel r = {};
  r.args = &a;
  r.stride = p.stride;
  r.in0 = p.in.begin(segment);
  r.in1 = p.in.end(segment);
  r.out0 = out0;
  r.out1 = out1;
  r.y_stride = a.y_stride;
  r.sums = sums;
  r.packed = packed;
  return r;
}

// All segments of outputs out0..out1 for samples b0..b1.
void read_outputs(const Plan& p, int64_t block, int64_t out0, int64_t out1, int64_t b0, int64_t b1,
                  float* sums, float* packed) {
  const PlacedRead& a = *p.a;
  for (int64_t s = 0; s < p.segments; ++s) {
    ReadPanel r = panel_of(p, s, out0, out1, sums, packed);
    r.input = p.input + b0 * p.stride;
    r.samples = b1 - b0;
    r.scale = p.scale + b0;
    r.deviation = p.deviation + s * a.batch + b0;
    r.keys = p.keys + s * a.batch + b0;
    r.y = a.y + b0 * a.y_stride;
    r.first = s == 0;
    r.saturated = a.max_rounds > 0 ? p.saturated + block * a.batch + b0 : nullptr;
    table().read_panel(r);
  }
}

// Bound management of one sample in one row block: each tile doubles its own beta until nothing
// saturates; all draws are fresh.
void repeat_sample(const Plan& p, int64_t b, int64_t block, float* sums, float* packed, float* q,
                   float* deviation, float* converted) {
  const PlacedRead& a = *p.a;
  const int64_t out0 = p.out.begin(block), out1 = p.out.end(block);
  const float one = 1.0f;
  for (int64_t s = 0; s < p.segments; ++s) {
    int round = 0;
    for (uint8_t saturated = 0;; ++round) {
      convert_input(p, b, block, round, q, deviation, 1);
      const Keys key = output_keys(a, b, p.in.index(s), 0, round);
      saturated = 0;
      for (int64_t o = out0; o < out1; o += table().panel) {
        const int64_t end = o + table().panel < out1 ? o + table().panel : out1;
        ReadPanel r = panel_of(p, s, o, end, sums, packed);
        r.input = q;
        r.samples = 1;
        r.scale = &one;
        r.deviation = deviation + s;
        r.keys = &key;
        r.y = converted;
        r.first = true;
        r.saturated = &saturated;
        table().read_panel(r);
      }
      if (!saturated || round == a.max_rounds) break;
    }
    const float scale = (p.alpha[b] * float(1 << round)) * a.out_scale;
    float* y = a.y + b * a.y_stride;
    for (int64_t o = out0; o < out1; ++o)
      y[o] = s == 0          ? converted[o] * scale
             : table().fused ? fma(converted[o], scale, y[o])
                             : converted[o] * scale + y[o];
  }
}

// A few batch blocks when there are too few panels to keep the threads busy.
int64_t batch_block(int64_t batch, int64_t panels, int threads) {
  if (threads <= 1 || panels >= 2 * threads || batch < 48 * threads) return batch;
  return count_of(count_of(batch, threads), 6) * 6;
}

void read_block(const Plan& p, int64_t block, int threads, Scratch& scratch) {
  const PlacedRead& a = *p.a;
  const int64_t first = p.out.begin(block), last = p.out.end(block), panel = table().panel;
  const bool lines = a.transposed && a.batch == 1;  // as they lie: a panel of each thread
  const int64_t width = lines ? count_of(count_of(last - first, panel), threads) * panel : panel;
  const int64_t panels = count_of(last - first, width);
  const int64_t run = batch_block(a.batch, panels, threads), runs = count_of(a.batch, run);
  const int64_t sums = run * width, packed = kPackedInputs * panel;
  float* memory = scratch.take<float>((sums + packed + 16) * threads);
  const auto task = [&](int64_t t, int thread) {
    float* mine = memory + (sums + packed + 16) * thread;
    const int64_t o = first + t / runs * width, b = t % runs * run;
    read_outputs(p, block, o, o + width < last ? o + width : last, b,
                 b + run < a.batch ? b + run : a.batch, mine, mine + sums);
  };
  if (threads <= 1 || panels * runs == 1) {  // a region of one thread costs as much as a small read
    for (int64_t t = 0; t < panels * runs; ++t) task(t, 0);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t t = 0; t < panels * runs; ++t) task(t, thread_index());
}

void repeat_saturated(const Plan& p, int64_t block, int threads, Scratch& scratch) {
  const PlacedRead& a = *p.a;
  const uint8_t* flags = p.saturated + block * a.batch;
  int64_t n = 0;
  int64_t* which = scratch.take<int64_t>(a.batch);
  for (int64_t b = 0; b < a.batch; ++b)
    if (flags[b]) which[n++] = b;
  if (n == 0) return;
  const int64_t width = table().panel;
  const int64_t each = width * (kPackedInputs + 1) + p.stride + p.segments + p.outputs + 64;
  float* memory = scratch.take<float>(each * threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1)
  for (int64_t i = 0; i < n; ++i) {
    float* packed = memory + each * thread_index();
    float* sums = packed + width * kPackedInputs;
    float* q = sums + width;
    float* deviation = q + p.stride;
    std::memset(q, 0, size_t(p.stride) * sizeof(float));
    repeat_sample(p, which[i], block, sums, packed, q, deviation, deviation + p.segments);
  }
}

Status read_block_of(const PlacedRead& a, int threads) {
  Plan p = {};
  p.a = &a;
  p.inputs = a.transposed ? a.rows : a.cols;
  p.outputs = a.transposed ? a.cols : a.rows;
  if (a.batch == 0 || p.outputs == 0) return {};
  if (p.inputs == 0) {
    for (int64_t b = 0; b < a.batch; ++b)
      std::memset(a.y + b * a.y_stride, 0, size_t(p.outputs) * sizeof(float));
    return {};
  }
  if (a.rows * a.cols * a.batch < kSerialCrosspoints) threads = 1;
  Scratch& scratch = Scratch::of_thread();
  p.in = {a.input0, p.inputs, a.tile_in};
  p.out = {a.output0, p.outputs, a.tile_out};
  p.segments = p.in.count();
  p.blocks = p.out.count();
  p.stride = (p.inputs + 15) / 16 * 16 + 16;  // zeros to a full vector; breaks power-of-two strides
  p.alpha = scratch.take<float>(a.batch);
  const Status status = manage_inputs(p);
  if (status.source) return status;
  p.scale = scratch.take<float>(a.batch);
  p.deviation = scratch.take<float>(p.segments * a.batch);
  p.keys = scratch.take<Keys>(p.segments * a.batch);
  p.input = scratch.take<float>(a.batch * p.stride);
  p.saturated = scratch.take<uint8_t>(p.blocks * a.batch);
  std::memset(p.saturated, 0, size_t(p.blocks * a.batch));
  const bool noisy = a.output_noise > 0.0f || a.weight_noise > 0.0f;
  for (int64_t b = 0; b < a.batch; ++b) {
    p.scale[b] = p.alpha[b] * a.out_scale;
    for (int64_t s = 0; s < p.segments; ++s)
      p.keys[s * a.batch + b] = noisy ? output_keys(a, b, p.in.index(s), 0, 0) : Keys{0, 0};
  }
  for (int64_t block = 0; block < p.blocks; ++block) {
    if (block == 0 || a.input_noise > 0.0f)
      parallel_chunks(a.batch, 16, threads, [&](int64_t b0, int64_t b1) {
        for (int64_t b = b0; b < b1; ++b) {
          float* q = p.input + b * p.stride;
          std::memset(q + p.inputs, 0, size_t(p.stride - p.inputs) * sizeof(float));
          convert_input(p, b, block, 0, q, p.deviation + b, a.batch);
        }
      });
    read_block(p, block, threads, scratch);
    if (a.max_rounds > 0) repeat_saturated(p, block, threads, scratch);
  }
  return {};
}

// Some rows of a batch, cut behind the samples that are tapped.
void accumulate(const PlacedUpdate& a, const OuterJob& whole, int64_t row0, int64_t row1) {
  constexpr int64_t kRows = 8;  // stay in the first-level cache from one cut to the next
  const auto samples = [&](int64_t b0, int64_t b1, int64_t r0, int64_t r1) {
    OuterJob job = whole;
    job.a += b0;
    job.x += b0 * job.x_stride;
    job.batch = b1 - b0;
    if (b0 < b1) table().accumulate_outer(job, r0, r1);
  };
  const int64_t step = a.taps.count ? kRows : row1 - row0;
  for (int64_t r0 = row0; r0 < row1; r0 += step) {
    const int64_t r1 = r0 + step < row1 ? r0 + step : row1;
    int64_t b = 0;
    for (int64_t t = 0; t < a.taps.count; ++t) {
      const int64_t end = a.taps.at[2 * t] + 1;
      samples(b, end, r0, r1);
      b = end;
      for (int64_t i = r0; i < r1; ++i)
        a.taps.values[i * a.taps.count + t] = a.w[i * a.cols + a.taps.at[2 * t + 1]];
    }
    samples(b, a.batch, r0, r1);
  }
}

Status update_ideal_block(const PlacedUpdate& a, int threads) {
  if (a.rows == 0 || a.cols == 0 || a.batch == 0) return {};
  Scratch& scratch = Scratch::of_thread();
  float* scaled = scratch.take<float>(a.rows * a.batch);
  for (int64_t b = 0; b < a.batch; ++b)
    for (int64_t i = 0; i < a.rows; ++i)
      scaled[i * a.batch + b] = -(a.train.lr * a.d[b * a.d_stride + i]);
  if (a.rows * a.cols * a.batch < kSerialCrosspoints) threads = 1;
  const OuterJob job = {a.w, scaled, a.x, a.rows, a.cols, a.batch, a.batch, a.x_stride};
  parallel_chunks(a.rows, 48, threads, [&](int64_t r0, int64_t r1) { accumulate(a, job, r0, r1); });
  return {};
}

}  // namespace

bool is_finite(const float* values, int64_t count) {
  return table().absmax(values, count) < kInfinity;
}

Status read(const PlacedRead& a, int64_t block_rows, int threads) {
  return over_blocks(a, block_rows, threads,
                     [](const PlacedRead& block, int n) { return read_block_of(block, n); });
}

Status update_ideal(const PlacedUpdate& a, int64_t block_rows, int threads) {
  if (a.rows == 0 || a.cols == 0 || a.batch == 0) return {};
  const Status status = check_finite(a, block_rows);
  if (status.source) return status;
  return over_blocks(a, block_rows, threads,
                     [](const PlacedUpdate& block, int n) { return update_ideal_block(block, n); });
}

}  // namespace pulseline::cpu
