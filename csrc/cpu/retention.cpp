// What happens between pulses: one pass over the crosspoints. Loops: retention.inl.
#include "core/retention.h"

#include "cpu/slices.h"

namespace pulseline::cpu {
namespace {

void write_rows(const WriteNoiseJob& job, int64_t rows, int threads) {
  over_rows(rows, job.cols, threads,
            [&](int64_t r0, int64_t r1) { table().write_noise(job, r0, r1); });
}

}  // namespace

void retain(const RetentionArgs& a, int threads) {
  const Keys key = draw_keys(a.stream, a.purpose, a.k, 0);
  over_rows(a.rows, a.cols, threads,
            [&](int64_t r0, int64_t r1) { table().retain(a, key, r0, r1); });
}

void disturb(const float* hidden, const uint32_t* step, float* visible, int64_t rows, int64_t cols,
             const Stream& stream, uint64_t k, float deviation, int threads) {
  const Keys key = draw_keys(stream, kProgramming, k, 0);
  write_rows({hidden, step, visible, cols, deviation, key, nullptr, nullptr}, rows, threads);
}

Status redraw(const UpdateArgs& a, const float* hidden, float deviation, int threads) {
  if (a.rows == 0 || a.cols == 0 || a.batch == 0) return {};
  Scratch& scratch = Scratch::of_thread();
  Train* trains = scratch.take<Train>(a.batch);
  const Status status = manage_trains(a, trains);
  if (status.source) return status;
  if (a.fidelity == kExpected) {  // no trains, no noise
    std::memcpy(a.w, hidden, size_t(a.rows * a.cols) * sizeof(float));
    return status;
  }
  if (!(a.train.lr > 0.0f)) return status;
  TrainWord* train_words = scratch.take<TrainWord>(kSlice);
  Keys* keys = scratch.take<Keys>(a.batch);
  int32_t* last = scratch.take<int32_t>(a.rows * a.cols);
  for (int64_t o = 0; o < a.rows * a.cols; ++o) last[o] = -1;
  for (int64_t b = 0; b < a.batch; ++b)
    keys[b] = draw_keys(a.stream, kWriteNoise, a.k + uint64_t(b), 0);
  UpdateJob job = {};
  job.args = &a;
  allocate(job, scratch, kSlice);
  job.train_words = train_words;
  for (Cursor at;;) {
    job.count = next_slice(a, trains, at, a.batch, kSlice, train_words, nullptr);
    if (job.count == 0) break;
    job.words = (job.count + 63) / 64;
    SliceRun{job, table().mark_last, &last}.run(threads);
  }
  write_rows({hidden, a.step, a.w, a.cols, deviation, {}, last, keys}, a.rows, threads);
  return status;
}

}  // namespace pulseline::cpu
