// Groups of `grouped`, by the rule of the CPU backend: a group closes after group_size samples, or
// before its expected travel would exceed kGroupTravel; then the slots of its train words are laid
// side by side in words, each train word within one, and words make steps. One block per call:
// every sample's end, were it the first of a group, is found in parallel; one thread follows the
// chain of ends; the groups' steps are counted, summed and filled in parallel.
#include "cuda/update_device.h"

namespace pulseline::cuda {
namespace {

constexpr int kThreads = 512, kWindow = 4096;

struct Window {  // of samples; a group that begins within it may reach beyond
  float pulses[kWindow + kGroupSamples];
  int32_t length[kWindow];  // of the group that begins here
};
static_assert(sizeof(Window) <= kStaticShared - 4 * kThreads, "fits beside the partial sums");

PL_DEVICE int64_t group_limit(const UpdateArgs& a) {
  return a.group_size > 0 && a.group_size < kGroupSamples ? a.group_size : kGroupSamples;
}

// Lengths of the groups that may begin in [first, last).
PL_DEVICE void find_lengths(const Task& t, int64_t first, int64_t last, Window& window) {
  const int64_t batch = t.args.batch, limit = group_limit(t.args);
  const int64_t seen = last + limit < batch ? last + limit : batch;
  for (int64_t b = first + threadIdx.x; b < seen; b += kThreads)
    window.pulses[b - first] = t.trains[b].pulses * t.args.coarseness;
  __syncthreads();
  for (int64_t b = first + threadIdx.x; b < last; b += kThreads) {
    const int most = int(batch - b < limit ? batch - b : limit);
    const float* pulses = window.pulses + (b - first);
    float travel = pulses[0];
    int n = 1;
    for (; n < most; ++n) {
      travel += pulses[n];
      if (travel > kGroupTravel) break;
    }
    window.length[b - first] = n;
  }
  __syncthreads();
}

// Calls visit(train word, word, shift) for the train words of a group in order; returns its words.
template <class Visit>
PL_DEVICE int32_t place_slots(const Task& t, int64_t first, int64_t last, Visit visit) {
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
      visit(b * t.words + w, word, shift);
      shift += slots;
      any = true;
    }
  }
  return any ? word + 1 : 0;
}

PL_DEVICE int32_t slice_of(const Task& t, int64_t sample) {
  return int32_t(sample / t.slice_samples);
}

// Turns counts of steps, one per group, into the groups' first steps, and finds where slices begin.
// Every thread has a run of neighbours.
PL_DEVICE void place_steps(const Task& t, int32_t groups, int32_t* part) {
  const int32_t each = (groups + kThreads - 1) / kThreads, me = int32_t(threadIdx.x);
  const int32_t begin = each * me < groups ? each * me : groups;
  const int32_t end = begin + each < groups ? begin + each : groups;
  int32_t sum = 0;
  for (int32_t g = begin; g < end; ++g) sum += t.groups[g].step;
  part[me] = sum;
  __syncthreads();
  if (me == 0) {
    int32_t step = 0;
    for (int i = 0; i < kThreads; ++i) {
      const int32_t own = part[i];
      part[i] = step;
      step += own;
    }
    t.slice_step[t.slices] = step;
  }
  __syncthreads();
  int32_t step = part[me];
  for (int32_t g = begin; g < end; ++g) {
    const int32_t own = t.groups[g].step;
    t.groups[g].step = step;
    // The first group of a slice; one in which no group begins is empty.
    const int32_t before = g ? slice_of(t, t.groups[g - 1].first) : -1;
    for (int32_t s = before + 1; s <= slice_of(t, t.groups[g].first); ++s) t.slice_step[s] = step;
    step += own;
  }
  const int32_t last = slice_of(t, t.groups[groups - 1].first);
  for (int32_t s = last + 1 + me; s < t.slices; s += kThreads)
    t.slice_step[s] = t.slice_step[t.slices];
}

// Spans, shifts and steps of one group.
PL_DEVICE void fill_group(const Task& t, const Group& g) {
  const UpdateArgs& a = t.args;
  Span* spans = t.spans + int64_t(g.step) * kStepWords;
  int32_t words = place_slots(t, g.first, g.last, [&](int64_t train, int32_t word, int32_t at) {
    t.shifts[train] = at;
    Span& span = spans[word];
    if (at == 0) span.first = int32_t(train);
    span.last = int32_t(train) + 1;
  });
  for (; words % kStepWords; ++words) spans[words] = {0, 0};
  Keys noise = draw_keys(a.stream, kGroupNoise, call_number(t) + uint64_t(g.first), 0);
  if (a.noise == kLowRank) noise = {uint32_t(g.first), 0};  // what its factors are drawn with
  for (int32_t step = 0; step < words / kStepWords; ++step)
    t.steps[g.step + step] = {noise, (step + 1) * kStepWords == words};
}

__global__ void __launch_bounds__(kThreads) groups_kernel(const __grid_constant__ Tasks tasks) {
  PL_SHARED(Window, window, 1);
  PL_SHARED(int32_t, part, kThreads);
  PL_SHARED(int32_t, found, 1);
  const Task& t = tasks.task[blockIdx.x];
  const int64_t batch = t.args.batch;
  if (batch == 0 || still(t)) return;  // others of the launch have samples
  int64_t sample = 0;                  // of thread 0: first of the group at hand
  int32_t groups = 0;
  for (int64_t first = 0; first < batch; first += kWindow) {
    const int64_t last = first + kWindow < batch ? first + kWindow : batch;
    find_lengths(t, first, last, *window);
    if (threadIdx.x == 0) {
      for (int32_t length; sample < last; sample += length) {
        length = window->length[sample - first];
        t.groups[groups++] = {int32_t(sample), int32_t(sample) + length, 0};
      }
      *found = groups;
    }
    __syncthreads();
  }
  groups = *found;
  for (int32_t g = int32_t(threadIdx.x); g < groups; g += kThreads) {
    Group& group = t.groups[g];
    const auto nowhere = [](int64_t, int32_t, int32_t) {};
    group.step = (place_slots(t, group.first, group.last, nowhere) + kStepWords - 1) / kStepWords;
  }
  __syncthreads();
  place_steps(t, groups, part);
  __syncthreads();
  for (int32_t g = int32_t(threadIdx.x); g < groups; g += kThreads) fill_group(t, t.groups[g]);
}

}  // namespace

cudaError_t launch_groups(const Call& c) {
  return launch(groups_kernel, unsigned(c.count), kThreads, 0, c.stream, tasks_of(c));
}

}  // namespace pulseline::cuda
