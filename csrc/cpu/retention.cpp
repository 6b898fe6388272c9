// What happens between pulses: one pass over the crosspoints. Loops: retention.inl.
#include "core/retention.h"

#include <vector>

#include "cpu/slices.h"

namespace pulseline::cpu {
namespace {

// Words of one row after the other, drawn anew.
class DrawnRow {
 public:
  DrawnRow(const Population& of, const AnyDevice& model, const ParameterKeys& keys, int64_t cols)
      : of_(of), model_(model), keys_(keys), cols_(cols), words_(size_t(4 * cols)) {}
  uint32_t* step() { return words_.data(); }
  uint32_t* bound() { return step() + cols_; }
  uint32_t* fade() { return step() + 2 * cols_; }
  uint32_t* walk() { return step() + 3 * cols_; }
  void draw(int64_t row, bool retention) {
    const ConstructJob pairs = {row, cols_, keys_, {step(), nullptr, bound()}};
    table().construct[of_.device](pairs, model_.bytes, row, row + 1);
    if (!retention) return;
    const ConstructJob words = {row, cols_, keys_, {fade(), walk(), nullptr}};
    table().construct_retention(words, &of_.retention, row, row + 1);
  }

 private:
  const Population& of_;
  const AnyDevice& model_;
  const ParameterKeys& keys_;
  int64_t cols_;
  std::vector<uint32_t> words_;
};

// Calls body(row, words) for all rows, whose words are drawn first; body(row) says which are not
// needed.
template <class Needed, class Body>
void over_drawn_rows(const Population& of, const Stream& stream, const Rows& rows, bool retention,
                     int threads, Needed needed, Body body) {
  const AnyDevice model(of.device, of.params);
  const ParameterKeys keys = parameter_keys(stream);
  over_rows(rows.count, rows.cols, threads, [&](int64_t r0, int64_t r1) {
    DrawnRow words(of, model, keys, rows.cols);
    for (int64_t i = r0; i < r1; ++i) {
      if (!needed(i)) continue;
      words.draw(i, retention);
      body(i, words);
    }
  });
}

bool any_written(const WriteNoiseJob& job, int64_t row) {
  if (!job.last) return true;
  for (int64_t j = 0; j < job.cols; ++j)
    if (job.last[row * job.cols + j] >= 0) return true;
  return false;
}

void write_rows(const WriteNoiseJob& job, const Population& drawn, const Stream& stream,
                int64_t rows, int threads) {
  if (job.step) {
    over_rows(rows, job.cols, threads,
              [&](int64_t r0, int64_t r1) { table().write_noise(job, r0, r1); });
    return;
  }
  over_drawn_rows(
      drawn, stream, {0, rows, job.cols}, false, threads,
      [&](int64_t i) { return any_written(job, i); },
      [&](int64_t i, DrawnRow& words) {
        WriteNoiseJob row = job;
        row.step = words.step();
        row.first = i;
        table().write_noise(row, i, i + 1);
      });
}

}  // namespace

void retain(const RetentionArgs& a, const Population& drawn, int threads) {
  const Keys key = draw_keys(a.stream, a.purpose, a.k, 0);
  if (a.step) {
    over_rows(a.rows, a.cols, threads,
              [&](int64_t r0, int64_t r1) { table().retain(a, key, r0, r1); });
    return;
  }
  over_drawn_rows(
      drawn, a.stream, {0, a.rows, a.cols}, true, threads, [](int64_t) { return true; },
      [&](int64_t i, DrawnRow& words) {
        RetentionArgs row = a;
        row.step = words.step();
        row.bound = words.bound();
        row.fade = words.fade();
        row.walk = words.walk();
        row.first = i;
        table().retain(row, key, i, i + 1);
      });
}

void disturb(const Written& cells, int64_t rows, int64_t cols, const Stream& stream, uint64_t k,
             int threads) {
  const Keys key = draw_keys(stream, kProgramming, k, 0);
  const WriteNoiseJob job = {cells.hidden, cells.step, cells.visible, cols, cells.deviation,
                             key,          nullptr,    nullptr,       0};
  write_rows(job, cells.drawn, stream, rows, threads);
}

Status redraw(const UpdateArgs& a, const Written& cells, int threads) {
  if (a.rows == 0 || a.cols == 0 || a.batch == 0) return {};
  Scratch& scratch = Scratch::of_thread();
  Train* trains = scratch.take<Train>(a.batch);
  const Status status = manage_trains(a, trains);
  if (status.source) return status;
  if (a.fidelity == kExpected) {  // no trains, no noise
    std::memcpy(a.w, cells.hidden, size_t(a.rows * a.cols) * sizeof(float));
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
  const WriteNoiseJob noise = {cells.hidden, cells.step, a.w,  a.cols, cells.deviation,
                               {},           last,       keys, 0};
  write_rows(noise, cells.drawn, a.stream, a.rows, threads);
  return status;
}

}  // namespace pulseline::cpu
