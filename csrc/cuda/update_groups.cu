// Groups of `grouped`, by the rule of the CPU backend: a group closes after group_size samples, or
// before its expected travel would exceed kGroupTravel; then the slots of its sub-samples are laid
// side by side in words, each sub-sample within one, and words make steps. One block per call:
// every sample's end, were it the first of a group, is found in parallel; one thread follows the
// chain of ends.
#include "cuda/update_device.h"

namespace pulseline::cuda {
namespace {

constexpr int kThreads = 512, kWindow = 4096;

PL_DEVICE int64_t group_end(const UpdateArgs& a, const Train* trains, int64_t first) {
  const int64_t asked = a.group_size > 0 ? a.group_size : kGroupSamples;
  const int64_t size = asked < kGroupSamples ? asked : kGroupSamples;
  float travel = 0.0f;
  int64_t b = first;
  for (; b < a.batch && b - first < size; ++b) {
    travel += trains[b].pulses * a.coarseness;
    if (b > first && travel > kGroupTravel) break;
  }
  return b;
}

// Calls place(sub-sample, word, shift) for the sub-samples of a group in order; returns its words.
template <class Place>
PL_DEVICE int32_t place_slots(const Task& t, int64_t first, int64_t last, Place place) {
  int32_t word = 0, shift = 0;
  bool any = false;
  for (int64_t b = first; b < last; ++b) {
    const int bl = t.trains[b].bl, words = words_of(bl);
    for (int w = 0; w < words; ++w) {
      const int slots = slots_of(bl, w);
      if (shift + slots > 32) {
        ++word;
        shift = 0;
      }
      place(b * t.words + w, word, shift);
      shift += slots;
      any = true;
    }
  }
  return any ? word + 1 : 0;
}

// Where the chain of groups stands.
struct Chain {
  int64_t sample;
  int32_t step, slice, groups;
  PL_DEVICE void begin_slices(const Task& t, bool all) {
    for (; slice < t.slices && (all || sample >= int64_t(slice) * t.slice_samples); ++slice)
      t.slice_step[slice] = step;
  }
  PL_DEVICE void add(const Task& t, int32_t length, int32_t words) {
    begin_slices(t, false);
    if (words) {
      t.groups[groups++] = {int32_t(sample), int32_t(sample) + length, step};
      step += (words + kStepWords - 1) / kStepWords;
    }
    sample += length;
  }
  PL_DEVICE void end(const Task& t) {
    begin_slices(t, true);
    t.slice_step[t.slices] = step;
    *t.group_count = groups;
  }
};

// Spans, shifts and steps of one group.
PL_DEVICE void fill_group(const Task& t, const Group& g) {
  const UpdateArgs& a = t.args;
  Span* spans = t.spans + int64_t(g.step) * kStepWords;
  int32_t words = place_slots(t, g.first, g.last, [&](int64_t sub, int32_t word, int32_t at) {
    t.shifts[sub] = at;
    Span& span = spans[word];
    if (at == 0) span.first = int32_t(sub);
    span.last = int32_t(sub) + 1;
  });
  for (; words % kStepWords; ++words) spans[words] = {0, 0};
  Keys noise = draw_keys(a.stream, kGroupNoise, a.k + uint64_t(g.first), 0);
  if (a.noise == kLowRank) noise = {uint32_t(g.first), 0};  // what its factors are drawn with
  for (int32_t step = 0; step < words / kStepWords; ++step)
    t.steps[g.step + step] = {noise, (step + 1) * kStepWords == words};
}

__global__ void __launch_bounds__(kThreads) groups_kernel(const __grid_constant__ Tasks tasks) {
  PL_SHARED(int32_t, length, kWindow);
  PL_SHARED(int32_t, words, kWindow);
  const Task& t = tasks.task[blockIdx.x];
  const int64_t batch = t.args.batch;
  if (refused(t)) return;
  Chain chain = {};  // of thread 0
  for (int64_t first = 0; first < batch; first += kWindow) {
    const int64_t last = first + kWindow < batch ? first + kWindow : batch;
    for (int64_t b = first + threadIdx.x; b < last; b += kThreads) {
      const int64_t end = group_end(t.args, t.trains, b);
      length[b - first] = int32_t(end - b);
      words[b - first] = place_slots(t, b, end, [](int64_t, int32_t, int32_t) {});
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      while (chain.sample < last)
        chain.add(t, length[chain.sample - first], words[chain.sample - first]);
      if (last == batch) chain.end(t);
    }
    __syncthreads();
  }
  for (int32_t g = int32_t(threadIdx.x); g < *t.group_count; g += kThreads)
    fill_group(t, t.groups[g]);
}

}  // namespace

cudaError_t launch_groups(const Call& c) {
  return launch(groups_kernel, unsigned(c.count), kThreads, 0, c.stream, tasks_of(c));
}

}  // namespace pulseline::cuda
