#pragma once
// What every update that draws trains shares: checks and management of a call, slices of samples,
// trains, and rows over threads.
#include <cstring>

#include "cpu/cpu.h"
#include "cpu/fired.h"
#include "cpu/kernels.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"

namespace pulseline::cpu {

constexpr int64_t kRowChunk = 48;

constexpr int64_t kSerialPass = 4096;  // crosspoints

// One pass over the crosspoints of rows, in chunks: body(row0, row1, col0), col0: the first column
// of the array that these rows have.
template <class Body>
void over_rows(const Rows& rows, int threads, Body body) {
  const int64_t first = rows.first, most = rows.block_rows ? rows.block_rows : rows.count + first;
  parallel_chunks(rows.count, kRowChunk, rows.count * rows.cols < kSerialPass ? 1 : threads,
                  [&](int64_t r0, int64_t r1) {
                    for (int64_t r = first + r0, end; r < first + r1; r = end) {
                      end = (r / most + 1) * most < first + r1 ? (r / most + 1) * most : first + r1;
                      body(r, end, rows.col0(r));
                    }
                  });
}

// A model with its parameters, type-erased for the kernel table.
struct AnyDevice {
  alignas(16) unsigned char bytes[256];
  AnyDevice(int device, const float* params) {
#define PULSELINE_FILL(D)                                              \
  static_assert(sizeof(D) <= sizeof(bytes), "device parameters grew"); \
  if (device == k##D) std::memcpy(bytes, params, sizeof(D));
    PULSELINE_DEVICES(PULSELINE_FILL)
#undef PULSELINE_FILL
  }
};

// A line saturates where its probability would be above 1; a thousandth more is no loss.
constexpr float kSaturates = 1.001f;

inline int64_t saturated_lines(const float* values, int64_t count, uint32_t most, float scale) {
  if (!(scale * as_float(most) > kSaturates)) return 0;
  return table().above(values, count, kSaturates / scale);
}

// Management of every sample; returns where a value is not finite, and how many lines saturate.
inline Status manage_trains(const PlacedUpdate& a, Train* trains) {
  int64_t saturated = 0;
  for (int64_t b = 0; b < a.batch; ++b) {
    const uint32_t x = table().absmax(a.x + b * a.x_stride, a.cols);
    const uint32_t d = table().absmax(a.d + b * a.d_stride, a.rows);
    if (x >= kInfinity) return {1, b};
    if (d >= kInfinity) return {2, b};
    const Train t = trains[b] = manage_train(a.train, as_float(x), as_float(d));
    saturated += saturated_lines(a.x + b * a.x_stride, a.cols, x, t.scale_x);
    saturated += saturated_lines(a.d + b * a.d_stride, a.rows, d, t.scale_d);
  }
  return {0, 0, saturated};
}

// Cursor over the train words of a batch: words of a sample in order, silent samples left out.
struct Cursor {
  int64_t sample = 0;
  int32_t word = 0;
};

// The next train words of samples before `end`, at most `capacity`.
inline int64_t next_slice(const PlacedUpdate& a, const Train* trains, Cursor& at, int64_t end,
                          int64_t capacity, TrainWord* out, Keys* slot_keys) {
  int64_t n = 0;
  for (; at.sample < end && n < capacity; ++at.sample, at.word = 0) {
    const Train& t = trains[at.sample];
    const uint64_t k = a.k + uint64_t(at.sample);
    const int32_t words = int32_t(words_of(t.bl));
    for (; at.word < words && n < capacity; ++at.word, ++n) {
      out[n] = draw_train_word(a.stream, k, at.sample, t, at.word);
      for (int s = 0; slot_keys && s < kSlotsPerWord; ++s)
        slot_keys[n * kSlotsPerWord + s] = slot_key(a.stream, k, at.word, s);
    }
    if (at.word < words) break;
  }
  return n;
}

inline int64_t padded_columns(int64_t cols) {  // kernels take two groups
  return (cols + 2 * kGroup - 1) / (2 * kGroup) * (2 * kGroup);
}

// Trains of up to `samples` train words.
inline void allocate(UpdateJob& job, Scratch& scratch, int64_t samples) {
  const PlacedUpdate& a = *job.args;
  job.padded_cols = padded_columns(a.cols);
  job.padded_rows = (a.rows + kGroup - 1) / kGroup * kGroup;
  const int64_t words = (samples + 63) / 64, groups = job.padded_cols / kGroup;
  job.column_words = scratch.take<uint32_t>(samples * job.padded_cols);
  job.column_up[0] = scratch.take<uint32_t>(samples * groups);
  job.column_up[1] = scratch.take<uint32_t>(samples * groups);
  job.column_hits = scratch.take<uint64_t>(groups * words);
  job.row_words = scratch.take<uint32_t>(job.padded_rows * samples);
  job.row_hits = scratch.take<uint64_t>(job.padded_rows * words);
  job.row_negative = scratch.take<uint64_t>(job.padded_rows * words);
}

// Room for the factors of `vectors` draws of low-rank noise.
inline void allocate_ranks(UpdateJob& job, Scratch& scratch, int64_t vectors) {
  if (job.args->noise != kLowRank) return;
  job.rank_columns = scratch.take<uint32_t>(vectors * kRankWords * job.padded_cols);
  job.rank_rows = scratch.take<uint32_t>(vectors * kRankWords * job.padded_rows);
}

// Whether the packed layout of grouped is the cheaper one, from the measured density: a block of 32
// columns meets `hits` train words one by one, or all packed words. Each costs a third of a train
// word where the packed words of a row fit the first-level cache, more than half of one beyond.
constexpr double kNearWord = 3.0, kFarWord = 1.6;
constexpr int64_t kNearBytes = 40 * 1024;
inline bool packing_pays(const UpdateJob& job) {
  if (!job.places) return false;
  int64_t row_hits = 0, column_hits = 0;
  for (int64_t q = 0; q < job.padded_rows * job.words; ++q)
    row_hits += __builtin_popcountll(job.row_hits[q]);
  for (int64_t q = 0; q < job.padded_cols / kGroup * job.words; ++q)
    column_hits += __builtin_popcountll(job.column_hits[q]);
  const double samples = double(job.count);
  const double hits = double(row_hits) / double(job.args->rows) *
                      (double(column_hits) * kGroup / double(job.args->cols)) / samples;
  const int64_t bytes = job.packed_words * job.padded_cols * int64_t(2 * sizeof(uint32_t));
  return double(job.packed_words) < (bytes <= kNearBytes ? kNearWord : kFarWord) * hits;
}

// The steps of a slice, each over groups of lines, then the rows.
struct SliceRun {
  UpdateJob job;
  UpdateRows rows;
  const void* device;

  int64_t column_groups() const { return job.padded_cols / kGroup; }
  int64_t line_groups() const { return column_groups() + job.padded_rows / kGroup; }
  void draw(int64_t g) const {
    const KernelTable& k = table();
    const int64_t r = g - column_groups();
    if (r < 0) {
      k.column_trains(job, g, g + 1);
      if (job.merged) k.column_moments(job, g, g + 1);
      if (job.rank_columns) k.column_ranks(job, g, g + 1);
    } else {
      k.row_trains(job, r, r + 1);
      if (job.merged) k.row_moments(job, r, r + 1);
      if (job.rank_rows) k.row_ranks(job, r, r + 1);
    }
  }
  void run([[maybe_unused]] int threads) {
    const int64_t lines = line_groups(), total = job.args->rows;
    const int64_t chunk = total >= 8 * kRowChunk ? kRowChunk : (total + 7) / 8;
    if (threads <= 1) {  // a region of one thread costs as much as a small update
      for (int64_t g = 0; g < lines; ++g) draw(g);
      job.packed = packing_pays(job);
      for (int64_t r = 0; r < total; r += chunk)
        rows(job, device, r, r + chunk < total ? r + chunk : total);
      return count_fired(job);
    }
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
      for (int64_t g = 0; g < lines; ++g) draw(g);
#pragma omp single
      job.packed = packing_pays(job);
#pragma omp for schedule(dynamic, 1)
      for (int64_t r = 0; r < total; r += chunk)
        rows(job, device, r, r + chunk < total ? r + chunk : total);
    }
    count_fired(job);
  }
};

}  // namespace pulseline::cpu
