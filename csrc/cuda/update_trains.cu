// Pulse words of a slice: one thread per line (columns first, then rows) and word, by train_word of
// core/pulses.h. Two layouts:
//   exact, strict  one sub-sample a word, the sign of x or d in the highest bit (a word without
//                  slots is 0, whatever the sign);
//   grouped        the slots of consecutive sub-samples side by side, positive and negative apart;
//                 see packed_place.
// And the pulses that really fire, counted from those words when asked.
#include "cuda/update_device.h"

namespace pulseline::cuda {
namespace {

constexpr int kThreads = 256;

struct Line {           // a column of x or a row of d
  const float* values;  // of sample 0
  int64_t count, index, padded;
  uint32_t* words;
  bool column;
};

PL_DEVICE Line line_of(const Task& t, int64_t i) {
  const UpdateArgs& a = t.args;
  if (i < t.padded_cols) return {a.x, a.cols, i, t.padded_cols, t.column_words, true};
  return {a.d, a.rows, i - t.padded_cols, t.padded_rows, t.row_words, false};
}

PL_DEVICE uint32_t slots_of_line(const Sub& s, const Line& line, float value) {
  const Keys key = line.column ? s.columns : s.rows;
  const uint32_t base = uint32_t(line.index) * kColumnStride;
  const float u = uniform24(hash(base + kRoundingDraw * kRowStride, key.k0, key.k1));
  const uint32_t p16 = probability16(line.column ? s.scale_x : s.scale_d, value, u);
  return p16 ? train_word(p16, base, key, s.slots) : 0u;
}

PL_DEVICE float value_of(const Sub& s, const Line& line) {
  return line.index < line.count ? line.values[s.source * line.count + line.index] : 0.0f;
}

__global__ void __launch_bounds__(kThreads)
    trains_kernel(const __grid_constant__ Tasks tasks, int slice) {
  const Task& t = tasks.task[blockIdx.z];
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= t.padded_cols + t.padded_rows || refused(t)) return;
  const Line line = line_of(t, i);
  const int64_t first = first_word(t, slice), count = words_in(t, slice);
  for (int64_t n = blockIdx.y; n < count; n += gridDim.y) {
    const Sub s = t.subs[first + n];
    uint32_t word = 0;
    if (s.slots) {
      const float value = value_of(s, line);
      word = slots_of_line(s, line, value);
      if (word) word |= as_bits(value) & kSign;
    }
    line.words[n * line.padded + line.index] = word;
  }
}

// Both signs of a column side by side; rows in the order of tensor core fragments: r and r + 8 of
// 16 side by side, positive, then negative.
PL_DEVICE int64_t packed_place(const Line& line, bool negative) {
  if (line.column) return line.index * 2 + negative;
  return line.index / 16 * 32 + line.index % 8 * 4 + negative * 2 + line.index / 8 % 2;
}

__global__ void __launch_bounds__(kThreads)
    packed_trains_kernel(const __grid_constant__ Tasks tasks, int slice) {
  const Task& t = tasks.task[blockIdx.z];
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (slice >= t.slices || i >= t.padded_cols + t.padded_rows || refused(t)) return;
  const Line line = line_of(t, i);
  const int64_t first = int64_t(t.slice_step[slice]) * kStepWords;
  const int64_t count = int64_t(t.slice_step[slice + 1]) * kStepWords - first;
  for (int64_t n = blockIdx.y; n < count; n += gridDim.y) {
    const Span span = t.spans[first + n];
    uint32_t positive = 0, negative = 0;
    for (int32_t q = span.first; q < span.last; ++q) {
      const Sub s = t.subs[q];
      if (!s.slots) continue;
      const float value = value_of(s, line);
      const uint32_t slots = slots_of_line(s, line, value) << t.shifts[q];
      if (as_bits(value) & kSign)
        negative |= slots;
      else
        positive |= slots;
    }
    uint32_t* words = line.words + n * line.padded * 2;
    words[packed_place(line, false)] = positive;
    words[packed_place(line, true)] = negative;
  }
}

// How many of `lines` words fire in slot `lane`.
PL_DEVICE uint32_t firing(const uint32_t* words, int64_t lines) {
  const int lane = int(threadIdx.x % 32);
  uint32_t total = 0;
  for (int64_t i = 0; i < lines; i += 32) {  // padded: a multiple of 32
    const uint32_t word = words[i + lane];
    for (int slot = 0; slot < 32; ++slot) {
      const uint32_t lines_on = __ballot_sync(0xffffffffu, int(word >> slot & 1u));
      if (slot == lane) total += uint32_t(__popc(lines_on));
    }
  }
  return total;
}

// One warp per word of the slice: rows times columns in every slot.
__global__ void __launch_bounds__(32) count_kernel(const __grid_constant__ Tasks tasks, int slice) {
  const Task& t = tasks.task[blockIdx.z];
  if (!t.args.fired || slice >= t.slices || refused(t)) return;
  const bool packed = t.args.fidelity == kGrouped;
  const int64_t begin = packed ? int64_t(t.slice_step[slice]) * kStepWords : 0;
  const int64_t first = packed ? begin : first_word(t, slice);
  const int64_t count =
      packed ? int64_t(t.slice_step[slice + 1]) * kStepWords - begin : words_in(t, slice);
  const int64_t signs = packed ? 2 : 1;  // a line fires in a slot with one sign
  const uint32_t slots_only = packed ? 0xffffffffu : ~kSign;
  for (int64_t n = blockIdx.x; n < count; n += gridDim.x) {
    const int64_t lines[2] = {signs * t.padded_cols, signs * t.padded_rows};
    uint32_t columns = firing(t.column_words + n * lines[0], lines[0]);
    if (!(slots_only >> threadIdx.x & 1u)) columns = 0;
    const uint32_t rows = firing(t.row_words + n * lines[1], lines[1]);
    int64_t slots = 0;
    if (threadIdx.x == 0) {
      if (!packed) slots = t.subs[first + n].slots;
      for (int32_t q = packed ? t.spans[first + n].first : 0;
           q < (packed ? t.spans[first + n].last : 0); ++q)
        slots += t.subs[q].slots;
    }
    auto* fired = reinterpret_cast<unsigned long long*>(t.args.fired);
    atomicAdd(fired, (unsigned long long)(columns)*rows);
    if (slots) atomicAdd(fired + 1, (unsigned long long)(slots));
  }
}

dim3 line_grid(const Call& c, int64_t words) {
  const int64_t lines = most(c, [](const Task& t) { return t.padded_cols + t.padded_rows; });
  const int64_t y = words < 32768 ? words : 32768;
  return {unsigned(ceil_div(lines, kThreads)), unsigned(y), unsigned(c.count)};
}

int64_t slice_words(const Call& c) {
  return most(c, [](const Task& t) {
    const int64_t samples = t.slice_samples < t.args.batch ? t.slice_samples : t.args.batch;
    return samples * t.words;
  });
}

}  // namespace

cudaError_t launch_trains(const Call& c, int slice) {
  return launch(trains_kernel, line_grid(c, slice_words(c)), kThreads, 0, c.stream, tasks_of(c),
                slice);
}

// Fewer words than sub-samples where trains are short: the kernel strides over what there is.
cudaError_t launch_packed_trains(const Call& c, int slice) {
  return launch(packed_trains_kernel, line_grid(c, slice_words(c)), kThreads, 0, c.stream,
                tasks_of(c), slice);
}

cudaError_t launch_count(const Call& c, int slice) {
  const unsigned blocks = unsigned(slice_words(c));
  return launch(count_kernel, {blocks, 1, unsigned(c.count)}, 32, 0, c.stream, tasks_of(c), slice);
}

}  // namespace pulseline::cuda
