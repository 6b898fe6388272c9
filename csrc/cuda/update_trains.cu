// Pulse words of a slice: one thread per line (columns first, then rows) and word, by train_word of
// core/pulses.h. Two layouts:
//   exact, strict  a train word in a word, the sign of x or d in the highest bit (a word without
//                  slots is 0, whatever the sign);
//   grouped        the slots of consecutive train words side by side, positive and negative apart;
//                 see packed_place.
// For moments, how many slots of every line fire. And the pulses that really fire, counted from
// those words when asked.
#include "cuda/update_device.h"

namespace pulseline::cuda {
namespace {

constexpr int kThreads = 256;

struct TrainLine {      // a column of x or a row of d
  const float* values;  // of sample 0
  int64_t count, index, padded;
  uint32_t* words;
  bool column;
};

PL_DEVICE TrainLine line_of(const Task& t, int64_t i) {
  const UpdateArgs& a = t.args;
  if (i < t.padded_cols) return {a.x, a.cols, i, t.padded_cols, t.column_words, true};
  return {a.d, a.rows, i - t.padded_cols, t.padded_rows, t.row_words, false};
}

PL_DEVICE uint32_t slots_of_line(const TrainWord& s, const TrainLine& line, float value) {
  return line_word(value, uint32_t(line.index) * kColumnStride, line.column ? s.scale_x : s.scale_d,
                   line.column ? s.columns : s.rows, s.slots);
}

PL_DEVICE float value_of(const TrainWord& s, const TrainLine& line) {
  return line.index < line.count ? line.values[s.source * line.count + line.index] : 0.0f;
}

__global__ void __launch_bounds__(kThreads)
    trains_kernel(const __grid_constant__ Tasks tasks, int slice) {
  const Task& t = tasks.task[blockIdx.z];
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= t.padded_cols + t.padded_rows || refused(t)) return;
  const TrainLine line = line_of(t, i);
  const int64_t first = first_word(t, slice), count = words_in(t, slice);
  for (int64_t n = blockIdx.y; n < count; n += gridDim.y) {
    const TrainWord s = t.train_words[first + n];
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
PL_DEVICE int64_t packed_place(const TrainLine& line, bool negative) {
  if (line.column) return line.index * 2 + negative;
  return line.index / 16 * 32 + line.index % 8 * 4 + negative * 2 + line.index / 8 % 2;
}

__global__ void __launch_bounds__(kThreads)
    packed_trains_kernel(const __grid_constant__ Tasks tasks, int slice) {
  const Task& t = tasks.task[blockIdx.z];
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (slice >= t.slices || i >= t.padded_cols + t.padded_rows || refused(t)) return;
  const TrainLine line = line_of(t, i);
  const int64_t first = int64_t(t.slice_step[slice]) * kStepWords;
  const int64_t count = int64_t(t.slice_step[slice + 1]) * kStepWords - first;
  for (int64_t n = blockIdx.y; n < count; n += gridDim.y) {
    const Span span = t.spans[first + n];
    uint32_t positive = 0, negative = 0;
    for (int32_t q = span.first; q < span.last; ++q) {
      const TrainWord s = t.train_words[q];
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

// ---- counts of moments ----

constexpr int kOctet = 8;  // a thread counts so many samples of a line

// Counts of longer trains are scaled down so that halves hold their squares.
struct Scaled {
  float scale, bl;          // of counts; scaled
  float inverse, variance;  // half of 1 / bl and of 1 / (bl^2 (bl - 1)), for scaled counts
};
PL_DEVICE Scaled scaled_train(int bl) {
  if (bl == 0) return {0.0f, 0.0f, 0.0f, 0.0f};
  const float slots = float(bl);
  float scale = 1.0f;
  while (slots * scale > 255.0f) scale = scale * 0.5f;
  const float inverse = 0.5f / (slots * scale * scale), square = scale * scale;
  const float spread = (slots * slots) * (slots - 1.0f);
  return {scale, slots * scale, inverse,
          bl > 1 ? 0.5f * kVarianceScale / ((spread * square) * square) : 0.0f};
}

PL_DEVICE uint32_t fired_slots(const Task& t, const TrainLine& line, int64_t b, float value) {
  uint32_t n = 0;
  const int words = words_of(t.trains[b].bl);
  for (int w = 0; w < words; ++w)
    n += uint32_t(__popc(slots_of_line(t.train_words[b * t.words + w], line, value)));
  return n;
}

// Signed counts of a slice, and per sample what turns them into factors. A thread is a line and
// eight samples. Products are positive upward: the row carries the sign of -d.
__global__ void __launch_bounds__(kThreads)
    counts_kernel(const __grid_constant__ Tasks tasks, int slice) {
  const Task& t = tasks.task[blockIdx.z];
  const int64_t batch = t.args.batch, first = int64_t(slice) * t.moment_samples;
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (first >= batch || refused(t)) return;
  const TrainLine line = line_of(t, i);
  uint16_t* factors = reinterpret_cast<uint16_t*>(t.moment_factors);
  for (int64_t s = int64_t(blockIdx.y) * kOctet; s < t.moment_samples; s += gridDim.y * kOctet) {
    if (i < kOctet) {
      const int64_t b = first + s + i;
      const Scaled v = scaled_train(b < batch ? t.trains[b].bl : 0);
      uint16_t* at = factors + s + i;
      at[0] = uint16_t(half_bits(v.bl));
      at[t.moment_samples] = uint16_t(half_bits(v.inverse));
      at[2 * t.moment_samples] = uint16_t(half_bits(v.variance));
    }
    if (line.index >= line.padded) continue;
    uint64_t low = 0, high = 0;  // eight halves, the first sample's lowest
#pragma unroll 1
    for (int n = 0; n < kOctet; ++n) {
      const int64_t b = first + s + n;
      uint64_t half = 0;
      if (b < batch && line.index < line.count) {
        const float value = line.values[b * line.count + line.index];
        const float set = to_float(fired_slots(t, line, b, value));
        const bool minus = ((as_bits(value) & kSign) != 0) == line.column;
        const float scaled = set * scaled_train(t.trains[b].bl).scale;
        half = half_bits(minus ? -scaled : scaled);
      }
      low = low >> 16 | high << 48;
      high = high >> 16 | half << 48;
    }
    *reinterpret_cast<uint4*>(line.words + (line.index * t.moment_samples + s) / 2) =
        make_uint4(uint32_t(low), uint32_t(low >> 32), uint32_t(high), uint32_t(high >> 32));
  }
}

// ---- pulses that fire ----

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
      if (!packed) slots = t.train_words[first + n].slots;
      for (int32_t q = packed ? t.spans[first + n].first : 0;
           q < (packed ? t.spans[first + n].last : 0); ++q)
        slots += t.train_words[q].slots;
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

// Fewer words than train words where trains are short: the kernel strides over what there is.
cudaError_t launch_packed_trains(const Call& c, int slice) {
  return launch(packed_trains_kernel, line_grid(c, slice_words(c)), kThreads, 0, c.stream,
                tasks_of(c), slice);
}

cudaError_t launch_counts(const Call& c, int slice) {
  const int64_t samples = most(c, [](const Task& t) { return t.moment_samples; });
  return launch(counts_kernel, line_grid(c, ceil_div(samples, kOctet)), kThreads, 0, c.stream,
                tasks_of(c), slice);
}

cudaError_t launch_count(const Call& c, int slice) {
  const unsigned blocks = unsigned(slice_words(c));
  return launch(count_kernel, {blocks, 1, unsigned(c.count)}, 32, 0, c.stream, tasks_of(c), slice);
}

}  // namespace pulseline::cuda
