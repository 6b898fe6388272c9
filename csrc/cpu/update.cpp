// The update of one call. Order: everything is checked before anything is written.
#include "cpu/blocks.h"
#include "cpu/slices.h"
#include "cpu/taps.h"

namespace pulseline::cpu {
namespace {

// The call's crosspoints and whose keys they are drawn with, if they are.
struct Cells {
  int device;
  AnyDevice model;
  ParameterKeys keys;
  bool drawn;
  Cells(const PlacedUpdate& a, int number, const float* params)
      : device(number), model(number, params), keys(), drawn(!a.step) {
    if (drawn) keys = parameter_keys(a.stream);
  }
  UpdateJob job(const PlacedUpdate& a) const {
    UpdateJob job = {};
    job.args = &a;
    job.drawn = drawn ? &keys : nullptr;
    return job;
  }
};

void run_expected(const PlacedUpdate& a, const Cells& cells, const Train* trains, int threads,
                  Scratch& scratch) {
  UpdateJob job = cells.job(a);
  job.trains = trains;
  SliceTaps(a, padded_columns(a.cols), scratch).take(job, a.batch);
  parallel_chunks(a.rows, kRowChunk, threads, [&](int64_t r0, int64_t r1) {
    table().expected[cells.device](job, cells.model.bytes, r0, r1);
  });
}

// exact and strict: train words in order, in slices of any size.
void run_ordered(const PlacedUpdate& a, const Cells& cells, const Train* trains, int threads,
                 Scratch& scratch) {
  int64_t most = 0;
  for (int64_t b = 0; b < a.batch; ++b) most += words_of(trains[b].bl);
  if (most == 0) return copy_taps(a, 0, a.taps.count);
  most = most < kSlice ? most : kSlice;
  const bool strict = a.fidelity == kStrict;
  UpdateJob job = cells.job(a);
  TrainWord* train_words = scratch.take<TrainWord>(most);
  Keys* slot_keys = strict ? scratch.take<Keys>(most * kSlotsPerWord) : nullptr;
  allocate(job, scratch, most);
  if (!strict) allocate_ranks(job, scratch, most);
  job.train_words = train_words;
  job.slot_keys = slot_keys;
  SliceTaps taps(a, job.padded_cols, scratch);
  for (Cursor at;;) {
    job.count = next_slice(a, trains, at, a.batch, kSlice, train_words, slot_keys);
    if (job.count == 0) return taps.rest();
    job.words = (job.count + 63) / 64;
    taps.take(job, at.sample);
    const UpdateRows* rows = strict ? table().strict : table().exact;
    SliceRun{job, rows[cells.device], cells.model.bytes}.run(threads);
  }
}

// The end of the group that starts at sample `first`: it closes after the group size, or before
// its expected travel exceeds the limit (grouped).
int64_t group_end(const PlacedUpdate& a, const Train* trains, int64_t first) {
  const bool grouped = a.fidelity == kGrouped;
  const int64_t asked = grouped && a.group_size > 0 ? a.group_size : kGroupSamples;
  const int64_t size = asked < kGroupSamples ? asked : kGroupSamples;
  float travel = 0.0f;
  int64_t b = first;
  for (; b < a.batch && b - first < size; ++b) {
    travel += trains[b].pulses * a.coarseness;
    if (grouped && b > first && travel > kGroupTravel) break;
  }
  return b;
}

int64_t words_between(const Train* trains, int64_t first, int64_t last) {
  int64_t n = 0;
  for (int64_t b = first; b < last; ++b) n += words_of(trains[b].bl);
  return n;
}

// Where the slots of each train word lie in the packed layout: groups start a word, a train word
// stays in one. Returns the number of words.
int64_t place_slots(const TrainWord* train_words, Group* groups, int64_t count,
                    PackedPlace* places) {
  int64_t word = 0;
  for (int64_t g = 0; g < count; ++g) {
    groups[g].word0 = word;
    int32_t shift = 0;
    for (int64_t s = groups[g].first; s < groups[g].last; ++s) {
      if (shift + train_words[s].slots > 32) {
        ++word;
        shift = 0;
      }
      places[s] = {int32_t(word), shift};
      shift += train_words[s].slots;
    }
    groups[g].word1 = ++word;
  }
  return word;
}

// Room for the packed layout of `most` train words.
void allocate_packed(UpdateJob& job, Scratch& scratch, int64_t most) {
  job.packed_columns = scratch.take<uint32_t>(most * job.padded_cols);
  job.packed_column_signs = scratch.take<uint32_t>(most * job.padded_cols);
  job.packed_rows = scratch.take<uint32_t>(most * job.padded_rows);
  job.packed_row_signs = scratch.take<uint32_t>(most * job.padded_rows);
}

// grouped and moments: slices of whole groups; moments takes one group at a time.
void run_relaxed(const PlacedUpdate& a, const Cells& cells, const Train* trains, int threads,
                 Scratch& scratch) {
  int64_t most = kSlice;
  for (int64_t b = 0; b < a.batch;) {
    const int64_t end = group_end(a, trains, b), words = words_between(trains, b, end);
    most = words > most ? words : most;
    b = end;
  }
  const int64_t total = words_between(trains, 0, a.batch);
  most = most < total ? most : total;
  if (total == 0) return;
  const bool moments = a.fidelity == kMoments;
  UpdateJob job = cells.job(a);
  TrainWord* train_words = scratch.take<TrainWord>(most);
  Group* groups = scratch.take<Group>(kSlice);
  allocate(job, scratch, most);
  job.train_words = train_words;
  job.groups = groups;
  PackedPlace* places = moments ? nullptr : scratch.take<PackedPlace>(most);
  if (!moments) allocate_packed(job, scratch, most);
  if (!moments) allocate_ranks(job, scratch, kSlice);
  if (moments)
    for (int f = 0; f < 4; ++f) {
      job.column_factors[f] = scratch.take<float>(kGroupSamples * job.padded_cols);
      job.row_factors[f] = scratch.take<float>(kGroupSamples * job.padded_rows);
    }
  for (int64_t b = 0; b < a.batch;) {
    job.count = job.group_count = job.merged = 0;
    do {
      const int64_t end = group_end(a, trains, b), words = words_between(trains, b, end);
      if (job.count + words > most) break;
      if (words > 0) {
        Cursor at = {b, 0};
        next_slice(a, trains, at, end, words, train_words + job.count, nullptr);
        const Keys noise = draw_keys(a.stream, kGroupNoise, a.k + uint64_t(b), 0);
        groups[job.group_count++] = {job.count, job.count + words, 0, 0, noise, a.k + uint64_t(b)};
        job.count += words;
        for (int64_t s = b; moments && s < end; ++s) job.merged += trains[s].bl > 0;
      }
      b = end;
    } while (!moments && b < a.batch && job.group_count < kSlice);
    job.words = (job.count + 63) / 64;
    if (job.count) {
      if (!moments) job.packed_words = place_slots(train_words, groups, job.group_count, places);
      job.places = 2 * job.packed_words <= job.count ? places : nullptr;
      const UpdateRows* rows = moments ? table().moments : table().grouped;
      SliceRun{job, rows[cells.device], cells.model.bytes}.run(threads);
    }
  }
}

Status update_block(const PlacedUpdate& a, int device, const float* params, int threads) {
  if (a.rows == 0 || a.cols == 0 || a.batch == 0) return {};
  if (a.batch == 1 && a.taps.count) {  // all taps are behind the last sample
    PlacedUpdate untapped = a;
    untapped.taps = {};
    const Status status = update_block(untapped, device, params, threads);
    if (!status.source) copy_taps(a, 0, a.taps.count);
    return status;
  }
  Scratch& scratch = Scratch::of_thread();
  Train* trains = scratch.take<Train>(a.batch);
  const Status status = manage_trains(a, trains);
  if (status.source) return status;
  if (!(a.train.lr > 0.0f)) {
    copy_taps(a, 0, a.taps.count);
    return status;
  }
  if (a.rows * a.cols * a.batch < kSerialCrosspoints) threads = 1;
  const Cells cells(a, device, params);
  if (a.fidelity == kExpected) {
    run_expected(a, cells, trains, threads, scratch);
    return status;
  }
  if (a.fidelity == kGrouped || a.fidelity == kMoments)
    run_relaxed(a, cells, trains, threads, scratch);
  else
    run_ordered(a, cells, trains, threads, scratch);
  return status;
}

}  // namespace

Status update(const PlacedUpdate& a, int device, const float* params, int64_t block_rows,
              int threads) {
  if (block_rows) {
    const Status status = check_finite(a, block_rows);
    if (status.source) return status;
    if (a.fired) threads = 1;  // blocks count together
  }
  return over_blocks(a, block_rows, threads, [&](const PlacedUpdate& block, int n) {
    return update_block(block, device, params, n);
  });
}

}  // namespace pulseline::cpu
