// The door to a crosspoint's parameters: words of bf16 pairs that were stored, or the same words
// drawn anew from (seed, tile, row, column). Included by kernels.inl.

namespace pulseline::cpu {
namespace {

PL_HD F first_of(U pair) { return as_float(pair & U(0xffff0000u)); }
PL_HD F second_of(U pair) { return as_float(pair << 16); }

PL_HD ParameterDraws<U> draws_at(const ParameterKeys& keys, int64_t row, int64_t column) {
  return {keys, lane_index() * U(kColumnStride) +
                    U(uint32_t(row) * kRowStride + uint32_t(column) * kColumnStride)};
}

// Words of crosspoints side by side.
struct Words {
  const uint32_t *step, *slope, *bound;
};

// Room for those of a block.
struct DrawnWords {
  static constexpr int kMost = 2 * kGroup > kPanel ? 2 * kGroup : kPanel;
  alignas(64) uint32_t step[kMost], slope[kMost], bound[kMost];
};

// Out of line: its registers would crowd those of the update. Two vectors at a time share what is
// the same for all lanes.
template <class Device>
__attribute__((noinline)) void draw_words(const Device& device,
                                          const ParameterKeys& __restrict keys, int64_t row,
                                          int64_t column, int vectors, DrawnWords& __restrict out) {
  for (int v = 0; v < vectors; v += 2) {
    const ParameterDraws<U> first = draws_at(keys, row, column + v * kLanes);
    const ParameterDraws<U> second = {keys, first.place + U(uint32_t(kLanes) * kColumnStride)};
    const Stored<U> a = construct_crosspoint(device, first);
    const Stored<U> b = construct_crosspoint(device, second);
    uint32_t *step = out.step + v * kLanes, *bound = out.bound + v * kLanes;
    store(step, a.step);
    store(step + kLanes, b.step);
    store(bound, a.bound);
    store(bound + kLanes, b.bound);
    if (!Device::kSlopes) continue;
    store(out.slope + v * kLanes, a.slope);
    store(out.slope + (v + 1) * kLanes, b.slope);
  }
}

// The words of so many vectors, in the arrays or drawn into `room`.
template <class Device>
PL_HD Words words_at(const UpdateJob& job, const Device& device, int64_t row, int64_t column,
                     int vectors, DrawnWords& room) {
  const PlacedUpdate& a = *job.args;
  if (job.drawn) {
    draw_words(device, *job.drawn, a.row0 + row, a.col0 + column, vectors, room);
    return {room.step, room.slope, room.bound};
  }
  const int64_t o = row * a.cols + column;
  return {a.step + o, Device::kSlopes ? a.slope + o : nullptr, a.bound + o};
}

// Device parameters of kLanes crosspoints from the o-th word on, of which the first n exist.
template <class Device>
PL_HD Crosspoint<F> load_crosspoint(const Words& words, const Device& device, int64_t o,
                                    int64_t n) {
  const bool whole = n >= kLanes;
  const U step = whole ? load(words.step + o) : load_partial(words.step + o, n);
  const U bound = whole ? load(words.bound + o) : load_partial(words.bound + o, n);
  Crosspoint<F> c;
  c.up = first_of(step);
  c.down = second_of(step);
  c.hi = first_of(bound);
  c.lo = second_of(bound);
  if (Device::kSlopes) {
    const U slope = whole ? load(words.slope + o) : load_partial(words.slope + o, n);
    c.slope_up = first_of(slope);
    c.slope_down = second_of(slope);
  }
  device.prepare(c);
  return c;
}

}  // namespace
}  // namespace pulseline::cpu
