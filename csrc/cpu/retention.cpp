// What happens between pulses: one pass over the crosspoints. Loops: retention.inl.
#include "core/retention.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "cpu/blocks.h"
#include "cpu/slices.h"

namespace pulseline::cpu {
namespace {

// Whose words are drawn anew, and with which keys.
struct Anew {
  const Population& of;
  AnyDevice model;
  ParameterKeys keys;
  Anew(const Population& p, const Stream& stream)
      : of(p), model(p.device, p.params), keys(parameter_keys(stream)) {}
};

// Words of one row after the other.
class DrawnRow {
 public:
  DrawnRow(const Anew& anew, int64_t cols) : anew_(anew), cols_(cols), words_(size_t(4 * cols)) {}
  const uint32_t* step() const { return words_.data(); }
  const uint32_t* bound() const { return step() + cols_; }
  const uint32_t* fade() const { return step() + 2 * cols_; }
  const uint32_t* walk() const { return step() + 3 * cols_; }
  // row, col0: of the array.
  void draw(int64_t row, int64_t col0, bool between) {
    uint32_t* out = words_.data();
    const ConstructJob pairs = {row, cols_, anew_.keys, {out, nullptr, out + cols_}, col0};
    table().construct[anew_.of.device](pairs, anew_.model.bytes, row, row + 1);
    if (!between) return;
    out += 2 * cols_;
    const ConstructJob words = {row, cols_, anew_.keys, {out, out + cols_, nullptr}, col0};
    table().construct_retention(words, &anew_.of.retention, row, row + 1);
  }

 private:
  const Anew& anew_;
  int64_t cols_;
  std::vector<uint32_t> words_;
};

// Calls body(row, col0, words) for all rows, whose words are drawn first.
template <class Body>
void over_drawn_rows(const Anew& anew, const Rows& rows, bool between, int threads, Body body) {
  over_rows(rows, threads, [&](int64_t r0, int64_t r1, int64_t col0) {
    DrawnRow words(anew, rows.cols);
    for (int64_t i = r0; i < r1; ++i) {
      words.draw(i, col0, between);
      body(i, col0, words);
    }
  });
}

void write_row(WriteNoiseJob job, int64_t row, const DrawnRow& words) {
  job.step = words.step();
  job.first = row;
  table().write_noise(job, row, row + 1);
}

struct Redrawing {
  WriteNoiseJob noise;
  const Anew* anew;  // nullptr: steps are stored
};

// A slice of an update's trains: noise of the last samples, row by row; later slices write over it.
void redraw_rows(const UpdateJob& job, const void* state, int64_t row0, int64_t row1) {
  const Redrawing& redrawing = *static_cast<const Redrawing*>(state);
  const int64_t cols = job.args->cols;
  std::vector<int32_t> last(static_cast<size_t>(cols));
  int32_t* const marks = last.data();
  std::optional<DrawnRow> words;
  if (redrawing.anew) words.emplace(*redrawing.anew, cols);
  for (int64_t i = row0; i < row1; ++i) {
    for (int32_t& sample : last) sample = -1;
    table().mark_last(job, &marks, i, i + 1);
    if (std::all_of(last.begin(), last.end(), [](int32_t sample) { return sample < 0; })) continue;
    WriteNoiseJob noise = redrawing.noise;
    noise.last = marks;
    noise.first = i;
    if (words) {
      words->draw(noise.row0 + i, noise.col0, false);
      write_row(noise, i, *words);
    } else {
      noise.step += i * cols;
      table().write_noise(noise, i, i + 1);
    }
  }
}

}  // namespace

void retain(const RetentionArgs& a, const Population& drawn, int64_t block_rows, int threads) {
  if (a.rows == 0 || a.cols == 0) return;  // words without memory are not drawn anew
  const Keys key = draw_keys(a.stream, a.purpose, a.k, 0);
  const Rows all = {0, a.rows, a.cols, block_rows};
  if (a.step) {
    over_rows(all, threads, [&](int64_t r0, int64_t r1, int64_t col0) {
      RetentionArgs part = a;
      part.col0 = col0;
      table().retain(part, key, r0, r1);
    });
    return;
  }
  const Anew anew(drawn, a.stream);
  over_drawn_rows(anew, all, true, threads, [&](int64_t i, int64_t col0, const DrawnRow& words) {
    RetentionArgs row = a;
    row.col0 = col0;
    row.step = words.step();
    row.bound = words.bound();
    row.fade = words.fade();
    row.walk = words.walk();
    row.first = i;
    table().retain(row, key, i, i + 1);
  });
}

void disturb(const Written& cells, const Rows& rows, const Stream& stream, uint64_t k,
             int threads) {
  if (rows.count == 0 || rows.cols == 0) return;
  const Keys key = draw_keys(stream, kProgramming, k, 0);
  WriteNoiseJob whole = {};
  whole.hidden = cells.hidden;
  whole.step = cells.step;
  whole.visible = cells.visible;
  whole.cols = rows.cols;
  whole.deviation = cells.deviation;
  whole.key = key;
  const auto job_of = [&](int64_t col0) {
    WriteNoiseJob job = whole;
    job.col0 = col0;
    return job;
  };
  if (whole.step) {
    over_rows(rows, threads, [&](int64_t r0, int64_t r1, int64_t col0) {
      table().write_noise(job_of(col0), r0, r1);
    });
    return;
  }
  const Anew anew(cells.drawn, stream);
  over_drawn_rows(anew, rows, false, threads, [&](int64_t i, int64_t col0, const DrawnRow& words) {
    write_row(job_of(col0), i, words);
  });
}

static Status redraw_block(const PlacedUpdate& a, const Written& cells, int threads) {
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
  for (int64_t b = 0; b < a.batch; ++b)
    keys[b] = draw_keys(a.stream, kWriteNoise, a.k + uint64_t(b), 0);
  UpdateJob job = {};
  job.args = &a;
  allocate(job, scratch, kSlice);
  job.train_words = train_words;
  std::optional<Anew> anew;
  if (!cells.step) anew.emplace(cells.drawn, a.stream);
  const WriteNoiseJob noise = {cells.hidden, cells.step, a.w, a.cols, cells.deviation, {},
                               nullptr,      keys,       0,   a.row0, a.col0};
  const Redrawing redrawing = {noise, anew ? &*anew : nullptr};
  for (Cursor at;;) {
    job.count = next_slice(a, trains, at, a.batch, kSlice, train_words, nullptr);
    if (job.count == 0) break;
    job.words = (job.count + 63) / 64;
    SliceRun{job, redraw_rows, &redrawing}.run(threads);
  }
  return status;
}

void rewrite(const PlacedUpdate& a, const CountedLines& lines, const Written& cells, int threads) {
  std::vector<Keys> keys(static_cast<size_t>(lines.count));
  for (int64_t t = 0; t < lines.count; ++t)
    keys[size_t(t)] = draw_keys(a.stream, kCountedPulses, a.k + uint64_t(t), kWritten);
  std::optional<Anew> anew;
  if (!cells.step) anew.emplace(cells.drawn, a.stream);
  const Rows all = {0, a.rows, a.cols, 0};
  over_rows(all, threads, [&](int64_t r0, int64_t r1, int64_t) {
    std::vector<int32_t> last(static_cast<size_t>(a.cols), -1);
    std::optional<DrawnRow> words;
    if (anew) words.emplace(*anew, a.cols);
    for (int64_t i = r0; i < r1; ++i) {
      bool any = false;
      for (int64_t t = 0; t < lines.count; ++t) {
        const bool pulsed = lines.counts[i * lines.count + t] != 0.0f;
        last[size_t(lines.columns[t])] = pulsed ? int32_t(t) : -1;
        any |= pulsed;
      }
      if (!any) continue;
      WriteNoiseJob job = {cells.hidden,
                           nullptr,
                           cells.visible,
                           a.cols,
                           cells.deviation,
                           {},
                           last.data(),
                           keys.data(),
                           i,
                           0,
                           0};
      if (words) {
        words->draw(i, 0, false);
        write_row(job, i, *words);
      } else {
        job.step = cells.step + i * a.cols;
        table().write_noise(job, i, i + 1);
      }
    }
  });
}

Status redraw(const PlacedUpdate& a, const Written& cells, int64_t block_rows, int threads) {
  return over_blocks(a, block_rows, threads, [&](const PlacedUpdate& block, int n) {
    Written part = cells;
    part.hidden += block.w - a.w;
    if (part.step) part.step += block.w - a.w;
    return redraw_block(block, part, n);
  });
}

}  // namespace pulseline::cpu
