// What happens between pulses: one pass over the crosspoints, far from the inner loops of updates.
#include "core/retention.h"

#include "cpu/slices.h"

namespace pulseline::cpu {
namespace {

constexpr int64_t kSerialPass = 4096;  // crosspoints

template <class Body>
void each_crosspoint(int64_t rows, int64_t cols, int threads, Body body) {
  parallel_chunks(rows, kRowChunk, rows * cols < kSerialPass ? 1 : threads,
                  [&](int64_t r0, int64_t r1) {
                    for (int64_t i = r0; i < r1; ++i)
                      for (int64_t j = 0; j < cols; ++j)
                        body(uint32_t(i), uint32_t(j), i * cols + j);
                  });
}

// last[row][column]: the sample whose pulses came last.
void mark_last(const UpdateJob& job, const void* state, int64_t row0, int64_t row1) {
  int32_t* const* last = static_cast<int32_t* const*>(state);
  const int64_t cols = job.args->cols;
  for (int64_t i = row0; i < row1; ++i)
    for (int64_t s = 0; s < job.count; ++s) {
      const uint32_t row = job.row_words[i * job.count + s];
      if (!row) continue;
      const uint32_t* columns = job.column_words + s * job.padded_cols;
      const int32_t source = job.samples[s].source;
      int32_t* out = *last + i * cols;
      for (int64_t j = 0; j < cols; ++j) out[j] = (columns[j] & row) ? source : out[j];
    }
}

}  // namespace

void construct_between(const RetentionParams& p, const Stream& stream, int64_t rows, int64_t cols,
                       uint32_t* words, int threads) {
  uint32_t* walk = words + rows * cols;
  each_crosspoint(rows, cols, threads, [&](uint32_t i, uint32_t j, int64_t o) {
    const RetentionWords c = construct_retention(p, stream, i, j);
    words[o] = c.fade;
    walk[o] = c.walk;
  });
}

void retain(const RetentionArgs& a, int threads) {
  const uint32_t* walk = a.words + a.rows * a.cols;
  const Keys key = draw_keys(a.stream, a.purpose, a.k, 0);
  each_crosspoint(a.rows, a.cols, threads, [&](uint32_t i, uint32_t j, int64_t o) {
    if (is_stuck(a.step[o])) return;
    const RetentionWords c = {a.words[o], walk[o]};
    const float xi = between_normal(i, j, key);
    a.w[o] = a.purpose == kReset ? reset(c, a.bound[o], a.amount, xi)
                                 : age(a.w[o], c, a.bound[o], a.amount, xi);
  });
}

void disturb(const float* hidden, const uint32_t* step, float* visible, int64_t rows, int64_t cols,
             const Stream& stream, uint64_t k, float deviation, int threads) {
  const Keys key = draw_keys(stream, kProgramming, k, 0);
  each_crosspoint(rows, cols, threads, [&](uint32_t i, uint32_t j, int64_t o) {
    visible[o] =
        is_stuck(step[o]) ? hidden[o] : fma(deviation, between_normal(i, j, key), hidden[o]);
  });
}

Status redraw(const UpdateArgs& a, const float* hidden, float deviation, int threads) {
  if (a.rows == 0 || a.cols == 0 || a.batch == 0) return {};
  Scratch& scratch = Scratch::of_thread();
  Train* trains = scratch.take<Train>(a.batch);
  const Status status = manage_all(a, trains);
  if (status.source || !(a.train.lr > 0.0f)) return status;
  Sample* samples = scratch.take<Sample>(kSlice);
  Keys* keys = scratch.take<Keys>(a.batch);
  int32_t* last = scratch.take<int32_t>(a.rows * a.cols);
  for (int64_t o = 0; o < a.rows * a.cols; ++o) last[o] = -1;
  for (int64_t b = 0; b < a.batch; ++b)
    keys[b] = draw_keys(a.stream, kWriteNoise, a.k + uint64_t(b), 0);
  UpdateJob job = {};
  job.args = &a;
  allocate(job, scratch, kSlice);
  job.samples = samples;
  for (Cursor at;;) {
    job.count = next_slice(a, trains, at, a.batch, kSlice, samples, nullptr);
    if (job.count == 0) break;
    job.words = (job.count + 63) / 64;
    SliceRun{job, mark_last, &last}.run(threads);
  }
  each_crosspoint(a.rows, a.cols, threads, [&](uint32_t i, uint32_t j, int64_t o) {
    if (last[o] >= 0 && !is_stuck(a.step[o]))
      a.w[o] = fma(deviation, between_normal(i, j, keys[last[o]]), hidden[o]);
  });
  return status;
}

}  // namespace pulseline::cpu
