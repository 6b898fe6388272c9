#pragma once
// Taps of an update (update.h): a warp writes what the columns that it holds are, from registers,
// before it takes the first train word behind their sample. 32 taps at a time are looked at, one by
// each lane, so that all lanes of a warp agree on which one is next; words that touch nothing are
// skipped with their taps, which the next word, or the end of the slice, writes.
#include "cuda/update_device.h"

namespace pulseline::cuda {

// The one task of a launch that has taps, and which of them lie in the slice.
template <class D>
struct TappedTask {
  Task task;
  D device;
  Taps taps;
  int32_t first, last;
};

// What a kernel records on its way: nothing, or taps.
struct Untapped {
  template <class Cells, class At>
  PL_DEVICE void before(int64_t, const Cells&, const At&) {}
};

// The taps of a warp's COLUMNS columns, from `column` on.
template <class D, int COLUMNS>
struct Tapped {
  static constexpr int kNever = 0x7fffffff;
  const TappedTask<D>& of;
  int words, sample0;  // train words of a sample, first sample of the slice
  int64_t column;
  int from;          // the first one of the 32 taps that were looked at
  uint32_t waiting;  // those of them that are the warp's and not written yet; 0: none is left
  int due;           // train word of the slice behind the next one

  PL_DEVICE Tapped(const TappedTask<D>& task, int words_of_sample, int first_sample,
                   int64_t first_column)
      : of(task),
        words(words_of_sample),
        sample0(first_sample),
        column(first_column),
        from(task.first - 32),
        waiting(0) {
    look();
  }
  PL_DEVICE int next() const { return from + __ffs(int(waiting)) - 1; }
  PL_DEVICE void look() {
    while (waiting == 0) {
      from += 32;
      if (from >= of.last) {
        due = kNever;
        return;
      }
      const int n = from + int(threadIdx.x % 32);
      const int64_t place = n < of.last ? of.taps.at[2 * int64_t(n) + 1] - column : -1;
      waiting = __ballot_sync(0xffffffffu, int(place >= 0 && place < COLUMNS));
    }
    due = (of.taps.at[2 * int64_t(next())] - sample0 + 1) * words;
  }
  template <class Cells, class At>
  PL_DEVICE void write(const Cells& cells, const At& at) {
    const int64_t n = next();
    cells.tap(of.task.args, at, of.taps.at[2 * n + 1], of.taps.values + n, of.taps.count);
    waiting &= waiting - 1;
    look();
  }
  // Train word s of the slice is next.
  template <class Cells, class At>
  PL_DEVICE void before(int64_t s, const Cells& cells, const At& at) {
    while (due <= s) write(cells, at);
  }
  // No train word of the slice is left.
  template <class Cells, class At>
  PL_DEVICE void end(const Cells& cells, const At& at) {
    while (waiting) write(cells, at);
  }
};

// Whether any tap lies in a slice of samples; then `one` is what its kernel takes.
template <class D>
bool taps_of(const Call& c, int64_t sample0, int64_t samples, TappedTask<D>& one) {
  if (!c.taps) return false;
  const Taps& taps = *c.taps;
  const auto before = [&](int64_t sample) {  // taps of samples before one
    int32_t low = 0, high = taps.count;
    while (low < high) {
      const int32_t middle = low + (high - low) / 2;
      if (taps.host[2 * int64_t(middle)] < sample)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  };
  one.task = c.tasks[0];
  std::memcpy(static_cast<void*>(&one.device), c.params[0], sizeof(D));
  one.taps = taps;
  one.first = before(sample0);
  one.last = before(sample0 + samples);
  return one.first < one.last;
}
// The same of slice number `slice` of the train words.
template <class D>
bool taps_of_slice(const Call& c, int slice, TappedTask<D>& one) {
  const int64_t samples = c.tasks[0].slice_samples;
  return taps_of(c, slice * samples, samples, one);
}

}  // namespace pulseline::cuda
