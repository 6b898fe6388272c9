// The update of one call: checks, management, slices of samples, trains, rows. Order: everything is
// checked before anything is written.
#include "cpu/cpu.h"

#include <cstring>

#include "cpu/kernels.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"

namespace pulseline::cpu {
namespace {

constexpr uint32_t kInfinity = 0x7f800000u;
constexpr int64_t kRowChunk = 32;

// A model with its parameters, type-erased for the kernel table.
struct AnyDevice {
  alignas(16) unsigned char bytes[128];
  AnyDevice(int device, const float* params) {
#define PULSELINE_FILL(D)                                             \
  static_assert(sizeof(D) <= sizeof(bytes), "device parameters grew"); \
  if (device == k##D) std::memcpy(bytes, params, sizeof(D));
    PULSELINE_DEVICES(PULSELINE_FILL)
#undef PULSELINE_FILL
  }
};

// Management of every sample; returns where a value is not finite.
Status manage_all(const UpdateArgs& a, Train* trains) {
  for (int64_t b = 0; b < a.batch; ++b) {
    const uint32_t x = table().absmax(a.x + b * a.cols, a.cols);
    const uint32_t d = table().absmax(a.d + b * a.rows, a.rows);
    if (x >= kInfinity) return {1, b};
    if (d >= kInfinity) return {2, b};
    trains[b] = manage(a.train, as_float(x), as_float(d));
  }
  return {};
}

// Cursor over the sub-samples of a batch: words of a sample in order, silent samples left out.
struct Cursor {
  int64_t sample = 0;
  int32_t word = 0;
};

int64_t next_slice(const UpdateArgs& a, const Train* trains, Cursor& at, Sample* out,
                   Keys* slot_keys) {
  int64_t n = 0;
  for (; at.sample < a.batch && n < kSlice; ++at.sample, at.word = 0) {
    const Train& t = trains[at.sample];
    const uint64_t k = a.k + uint64_t(at.sample);
    const int32_t words = int32_t(words_of(t.bl));
    for (; at.word < words && n < kSlice; ++at.word, ++n) {
      const uint32_t word = uint32_t(at.word);
      const Philox4 r = draw4(a.stream, kPulses, k, 0, word);
      out[n] = {int32_t(at.sample), slots_of(t.bl, at.word), t.scale_x, t.scale_d,
                {r.v[0], r.v[1]}, {r.v[2], r.v[3]}, draw_keys(a.stream, kCycleNoise, k, word)};
      if (slot_keys)
        for (uint32_t s = 0; s < uint32_t(kSlotsPerWord); ++s)
          slot_keys[n * kSlotsPerWord + s] = draw_keys(a.stream, kSlotNoise, k, word << 5 | s);
    }
    if (at.word < words) break;
  }
  return n;
}

void allocate(UpdateJob& job, Scratch& scratch, int64_t samples) {
  const int64_t words = (samples + 63) / 64, groups = job.padded_cols / kGroup;
  job.column_words = scratch.take<uint32_t>(samples * job.padded_cols);
  job.column_up[0] = scratch.take<uint32_t>(samples * groups);
  job.column_up[1] = scratch.take<uint32_t>(samples * groups);
  job.column_hits = scratch.take<uint64_t>(groups * words);
  job.row_words = scratch.take<uint32_t>(job.padded_rows * samples);
  job.row_hits = scratch.take<uint64_t>(job.padded_rows * words);
  job.row_negative = scratch.take<uint64_t>(job.padded_rows * words);
}

void run_slice(const UpdateJob& job, UpdateRows rows, const void* device, int threads) {
  const UpdateArgs& a = *job.args;
  const int64_t column_groups = job.padded_cols / kGroup, row_groups = job.padded_rows / kGroup;
  if (threads <= 1) {
    table().column_trains(job, 0, column_groups);
    table().row_trains(job, 0, row_groups);
    rows(job, device, 0, a.rows);
    return;
  }
  const int64_t chunk = a.rows >= 8 * kRowChunk ? kRowChunk : (a.rows + 7) / 8;
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int64_t g = 0; g < column_groups + row_groups; ++g) {
      if (g < column_groups)
        table().column_trains(job, g, g + 1);
      else
        table().row_trains(job, g - column_groups, g - column_groups + 1);
    }
#pragma omp for schedule(dynamic, 1)
    for (int64_t r = 0; r < a.rows; r += chunk)
      rows(job, device, r, r + chunk < a.rows ? r + chunk : a.rows);
  }
}

void run_expected(const UpdateArgs& a, int device, const void* params, int threads) {
  UpdateJob job = {};
  job.args = &a;
  parallel_chunks(a.rows, kRowChunk, threads, [&](int64_t r0, int64_t r1) {
    table().expected[device](job, params, r0, r1);
  });
}

}  // namespace

Status update(const UpdateArgs& a, int device, const float* params, int threads) {
  if (a.rows == 0 || a.cols == 0 || a.batch == 0) return {};
  Scratch& scratch = Scratch::of_thread();
  const AnyDevice model(device, params);
  Train* trains = scratch.take<Train>(a.batch);
  const Status status = manage_all(a, trains);
  if (status.source || !(a.train.lr > 0.0f)) return status;
  if (a.rows * a.cols * a.batch < kSerialCrosspoints) threads = 1;
  if (a.fidelity == kExpected) {
    run_expected(a, device, model.bytes, threads);
    return {};
  }
  int64_t most = 0;
  for (int64_t b = 0; b < a.batch; ++b) most += words_of(trains[b].bl);
  if (most == 0) return {};
  most = most < kSlice ? most : kSlice;
  UpdateJob job = {};
  job.args = &a;
  job.padded_cols = (a.cols + kGroup - 1) / kGroup * kGroup;
  job.padded_rows = (a.rows + kGroup - 1) / kGroup * kGroup;
  Sample* samples = scratch.take<Sample>(most);
  Keys* slot_keys = a.fidelity == kStrict ? scratch.take<Keys>(most * kSlotsPerWord) : nullptr;
  allocate(job, scratch, most);
  job.samples = samples;
  job.slot_keys = slot_keys;
  const UpdateRows rows =
      a.fidelity == kStrict ? table().strict[device] : table().exact[device];
  for (Cursor at;;) {
    job.count = next_slice(a, trains, at, samples, slot_keys);
    if (job.count == 0) return {};
    job.words = (job.count + 63) / 64;
    run_slice(job, rows, model.bytes, threads);
  }
}

void construct(int device, const float* params, const Stream& stream, int64_t rows, int64_t cols,
               uint32_t* step, uint32_t* slope, uint32_t* bound, int threads) {
  const AnyDevice model(device, params);
  const auto fill = [&](const auto& d, int64_t r0, int64_t r1) {
    for (int64_t i = r0; i < r1; ++i)
      for (int64_t j = 0; j < cols; ++j) {
        const Stored s = d.construct(stream, uint32_t(i), uint32_t(j));
        step[i * cols + j] = s.step;
        slope[i * cols + j] = s.slope;
        bound[i * cols + j] = s.bound;
      }
  };
  parallel_chunks(rows, kRowChunk, rows * cols < 4096 ? 1 : threads, [&](int64_t r0, int64_t r1) {
#define PULSELINE_CONSTRUCT(D) \
  if (device == k##D) fill(*reinterpret_cast<const D*>(model.bytes), r0, r1);
    PULSELINE_DEVICES(PULSELINE_CONSTRUCT)
#undef PULSELINE_CONSTRUCT
  });
}

void initial_normals(const Stream& stream, int64_t rows, int64_t cols, float* out) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j)
      out[i * cols + j] =
          probit(draw4(stream, kInitialisation, uint64_t(i), uint32_t(j), 0).v[0]);
}

}  // namespace pulseline::cpu
