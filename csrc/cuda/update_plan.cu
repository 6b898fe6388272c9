// The plan of an update: per sample the largest |x| and |d|, update management and the keys of its
// draws, exactly as core/pulses.h and core/rng.h have them. One block per sample.
#include "cuda/update_device.h"

namespace pulseline::cuda {
namespace {

constexpr int kThreads = 256;
constexpr uint32_t kInfinity = 0x7f800000u;

// Bits of the largest magnitude, in every thread. `scratch`: one word per warp.
PL_DEVICE uint32_t largest(const float* v, int64_t n, uint32_t* scratch) {
  uint32_t most = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    const uint32_t bits = as_bits(absolute(v[i]));
    most = bits > most ? bits : most;
  }
  most = __reduce_max_sync(0xffffffffu, most);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = most;
  __syncthreads();
  for (int i = 0; i < kThreads / 32; ++i) most = scratch[i] > most ? scratch[i] : most;
  return most;
}

__global__ void __launch_bounds__(kThreads) plan_kernel(const __grid_constant__ Tasks tasks) {
  PL_SHARED(uint32_t, scratch, 2 * (kThreads / 32));
  const Task& t = tasks.task[blockIdx.y];
  const UpdateArgs& a = t.args;
  const int64_t b = blockIdx.x;
  if (b >= a.batch) return;
  const uint32_t x = largest(a.x + b * a.cols, a.cols, scratch);
  const uint32_t d = largest(a.d + b * a.rows, a.rows, scratch + kThreads / 32);
  const bool finite = x < kInfinity && d < kInfinity;
  if (threadIdx.x == 0 && !finite)
    atomicMin(t.status, 2ull * (unsigned long long)(b) + (x < kInfinity));
  const Train train = finite ? manage_train(a.train, as_float(x), as_float(d)) : Train{};
  if (threadIdx.x == 0) t.trains[b] = train;
  if (a.fidelity == kExpected) return;
  const uint64_t k = call_number(t) + uint64_t(b);
  const int words = words_of(train.bl);
  for (int word = int(threadIdx.x); word < t.words; word += kThreads)
    t.train_words[b * t.words + word] = draw_train_word(a.stream, k, b, train, word);
  if (a.fidelity != kStrict) return;
  for (int i = int(threadIdx.x); i < words * kSlotsPerWord; i += kThreads)
    t.slot_keys[b * t.words * kSlotsPerWord + i] =
        slot_key(a.stream, k, i / kSlotsPerWord, i % kSlotsPerWord);
}

// One thread per tile. A replay of a captured launch begins where the last one ended.
__global__ void __launch_bounds__(kTasks)
    begin_kernel(const __grid_constant__ Tasks tasks, int count) {
  if (int(threadIdx.x) >= count) return;
  const Task& t = tasks.task[threadIdx.x];
  t.status[0] = kAllFinite;
  t.status[1] = first_number(t.args);
}

__global__ void __launch_bounds__(kTasks)
    advance_kernel(const __grid_constant__ Tasks tasks, int count) {
  if (int(threadIdx.x) >= count) return;
  const Task& t = tasks.task[threadIdx.x];
  if (t.args.counter && !refused(t)) *const_cast<int64_t*>(t.args.counter) += t.args.batch;
}

}  // namespace

cudaError_t launch_advance(const Call& c) {
  return launch(advance_kernel, 1, kTasks, 0, c.stream, tasks_of(c), c.count);
}

cudaError_t launch_plan(const Call& c) {
  PL_TRY(launch(begin_kernel, 1, kTasks, 0, c.stream, tasks_of(c), c.count));
  const int64_t batch = most(c, [](const Task& t) { return t.args.batch; });
  if (batch == 0) return cudaSuccess;
  return launch(plan_kernel, {unsigned(batch), unsigned(c.count)}, kThreads, 0, c.stream,
                tasks_of(c));
}

}  // namespace pulseline::cuda
