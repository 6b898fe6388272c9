#pragma once
// The pulsed update on the GPU: what its kernels share. A call is
//   begin    the number of the first sample, from the array's counter        (update_plan.cu)
//   plan     per sample: largest |x| and |d|, management, keys             (update_plan.cu)
//   groups   grouped: ends of groups, places of slots, steps               (update_groups.cu)
//   then per slice of at most kSliceWords pulse words, which stay in the second-level cache:
//   trains   pulse words of every line                                     (update_trains.cu)
//   pulses   one block of crosspoints per block, in registers for the slice (update_exact.cu, ...)
// or, for moments, counts and relaxations of kMomentSamples samples at a time (update_moments.cu),
// without a word to the host in between. Several tiles of one device model and fidelity share a
// launch: blockIdx.z is the tile. If any x or d is not finite, `status` says where and the kernels
// that follow return at once: nothing is written.
// exact, strict and expected take taps, of one tile that is launched alone (taps.h): where a slice
// has some, a kernel of its own writes them on its way.
#include <cstring>

#include "core/args.h"
#include "core/relax.h"
#include "cuda/launch.h"

namespace pulseline::cuda {

enum Device : int {
#define PULSELINE_ENUM(D) k##D,
  PULSELINE_DEVICES(PULSELINE_ENUM)
#undef PULSELINE_ENUM
      kDevices
};

constexpr int kTasks = 8;         // tiles of one launch: their arguments fit, see launch.h
constexpr int kSliceWords = 512;  // pulse words of a slice, unless a train is longer
constexpr int kPadColumns = 128, kPadRows = 64;
constexpr int kMomentSamples = 8192;       // samples of a slice of moments
constexpr float kVarianceScale = 2048.0f;  // keeps 1 / (bl^2 (bl - 1)) a normal half
constexpr int kStepWords = 4;              // packed words that one tensor core instruction counts
constexpr unsigned long long kAllFinite = ~0ull;
constexpr uint32_t kSign = 0x80000000u;  // of a line, in its pulse word: slots fill 31 bits

struct Span {  // train words whose slots share a packed word
  int32_t first, last;
};
struct Group {
  int32_t first, last;  // samples
  int32_t step;         // its first step, counted over the call
};
// kStepWords packed words of one group, the last of them perhaps empty; after its last step the
// group relaxes. Packed word n of a slice belongs to step n / kStepWords.
struct alignas(16) Step {
  Keys noise;  // low rank: the first sample of the group
  int32_t relax;
};

struct Task {  // one tile's call
  UpdateArgs args;
  int64_t padded_cols, padded_rows;
  int32_t words;          // most words of a sample's train
  int32_t slice_samples;  // samples (grouped: those that a group may begin with) of a slice
  int32_t slices;
  // Workspace.
  // 2 sample + (0: x, 1: d) of the first value that is not finite; number of the first sample
  unsigned long long* status;
  Train* trains;                       // [batch]
  TrainWord* train_words;              // [batch][words]
  Keys* slot_keys;                     // strict: [batch][words][31]
  uint32_t *column_words, *row_words;  // [slice words][padded], sign in the highest bit
  // grouped: [slice words][padded][2] in the order of packed_place
  Span* spans;      // [steps of the call][kStepWords]
  int32_t* shifts;  // [batch][words] place of a train word in its packed word
  Group* groups;    // [batch]
  Step* steps;
  int32_t* slice_step;  // [slices + 1] where a slice begins
  // Low-rank noise: factors of every word of the slice, grouped: of every step that begins a group;
  // [..][padded][kRankWords]. nullptr: noise is iid.
  uint32_t *rank_columns, *rank_rows;
  // moments: column_words and row_words hold signed counts of a slice, [padded][moment_samples]
  // halves; factors of every sample, [3][moment_samples] halves.
  int32_t moment_samples;
  uint32_t* moment_factors;
};

// Arguments of a launch.
struct Tasks {
  Task task[kTasks];
};
template <class D>
struct DeviceTasks {
  Task task[kTasks];
  D device[kTasks];
};

// What columns hold right behind samples, as if the batch ended there.
struct Taps {
  const int32_t* at;    // [count][2] sample, column; in the order of samples, on the GPU
  const int32_t* host;  // the same, on the host
  int32_t count;
  float* values;  // [rows][count]; of an update that is refused, what it would have moved
};

// Bytes that `task` needs, given args; with a base address its pointers are set.
size_t lay_out(Task& task, void* base);

// What a launch needs to know: `count` tasks of one device model and fidelity.
struct Call {
  const Task* tasks;
  int count;
  int device;
  const float* const* params;  // per task, in the order of kFields
  cudaStream_t stream;
  const Taps* taps = nullptr;  // of the only task, which is neither grouped nor moments
};
// Largest value of a field over the tasks.
template <class F>
int64_t most(const Call& c, F field) {
  int64_t n = 0;
  for (int i = 0; i < c.count; ++i) {
    const int64_t value = field(c.tasks[i]);
    n = value > n ? value : n;
  }
  return n;
}
inline bool anything(const Call& c) {
  return most(c, [](const Task& t) { return t.args.rows * t.args.cols * t.args.batch; }) > 0;
}
inline Tasks tasks_of(const Call& c) {
  Tasks t = {};
  for (int i = 0; i < c.count; ++i) t.task[i] = c.tasks[i];
  return t;
}
template <class D>
DeviceTasks<D> device_tasks_of(const Call& c) {
  DeviceTasks<D> t = {};
  for (int i = 0; i < c.count; ++i) {
    t.task[i] = c.tasks[i];
    std::memcpy(static_cast<void*>(&t.device[i]), c.params[i], sizeof(D));
  }
  return t;
}

cudaError_t launch_plan(const Call& c);
cudaError_t launch_advance(const Call& c);  // the counters of what was not refused
cudaError_t launch_groups(const Call& c);
cudaError_t launch_trains(const Call& c, int slice);
cudaError_t launch_packed_trains(const Call& c, int slice);
cudaError_t launch_ranks(const Call& c, int slice);  // factors of low-rank noise
cudaError_t launch_exact_ranks(const Call& c, int slice);
cudaError_t launch_counts(const Call& c, int slice);  // of moments: what lines fire, factors
cudaError_t launch_count(const Call& c, int slice);   // fired pulses of a slice
cudaError_t launch_exact(const Call& c, int slice);
cudaError_t launch_strict(const Call& c, int slice);
cudaError_t launch_expected(const Call& c);
cudaError_t launch_grouped(const Call& c, int slice);

cudaError_t launch_moments(const Call& c);  // counts and relaxations of all samples

// The whole call.
cudaError_t launch_update(const Call& c);

}  // namespace pulseline::cuda
