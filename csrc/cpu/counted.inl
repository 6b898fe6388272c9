// Counted pulses on single crosspoints: a vector is neighbouring columns of one row, every lane
// with the keys of its own line. Included by kernels.inl.

namespace pulseline::cpu {
namespace {

// most[line] becomes the largest |n| of these rows and of what it was; whether all are whole
// numbers of at most kMostCounted pulses.
bool counts_whole(const float* counts, int64_t lines, int64_t row0, int64_t row1, float* most) {
  U wrong(0u);
  const auto sizes = [&](const float* at, int64_t n) PL_LAMBDA {
    const F size = absolute(load_lanes(at, n));
    const F whole = to_float(truncate(min(size, F(float(kMostCounted)))));
    wrong = wrong | (as_bits(size) ^ as_bits(whole));
    return size;
  };
  if (lines == 1) {  // rows are neighbours then: a vector holds many of them
    F largest(most[0]);
    for (int64_t i = row0; i < row1; i += kLanes)
      largest = max(largest, sizes(counts + i, row1 - i < kLanes ? row1 - i : int64_t(kLanes)));
    most[0] = pulseline::as_float(max_lane(as_bits(largest)));  // none is negative
    return !any(wrong);
  }
  for_vectors(row0, row1, lines, [&](int64_t, int64_t j, int64_t o, int64_t n) PL_LAMBDA {
    store_lanes(most + j, max(sizes(counts + o, n), load_lanes(most + j, n)), n);
  });
  return !any(wrong);
}

// kLanes columns of row i, whose lines are `line` and what follows; the first n exist.
template <class Device>
PL_HD void pulse_lanes(const CountedJob& job, const Device& device, const NoiseTables& tables,
                       bool additive, const Crosspoint<F>& c, int64_t i, int64_t column,
                       int64_t line, int64_t n) {
  const PlacedUpdate& a = *job.cells.args;
  const F count = load_lanes(job.counts + i * job.lines + line, n), size = absolute(count);
  const F before = load_lanes(a.w + i * a.cols + column, n), zero(0.0f);
  const M up = zero < count;
  const U j = lane_index() + U(uint32_t(column));
  const U base = (j & U(~16u)) * U(kColumnStride) + U(uint32_t(i) * kRowStride);
  F w = before;
  for (int64_t q = 0; q < job.draws; ++q) {
    const F left = size - F(float((job.first + q) * job.each));
    const F pulses = min(max(left, zero), F(float(job.each)));
    if (!any(zero < pulses)) break;
    F xi = zero;
    if (job.noisy) {
      const uint32_t *k0 = job.keys[0] + q * job.stride, *k1 = job.keys[1] + q * job.stride;
      xi = column_normal(tables, base, nonzero(j & U(16u)), load(k0 + line), load(k1 + line));
    }
    const F moved = pulse(device, c, w, up, pulses, tables.root(truncate(pulses)), xi, additive);
    w = select(zero < pulses, moved, w);
  }
  const M touched = F(float(job.first * job.each)) < size;
  const F after = select(touched, keep_nan(before, w + zero), before);
  store_lanes(a.w + i * a.cols + column, after, n);
}

template <class Device>
void counted(const CountedJob& shared, const void* model, int64_t row0, int64_t row1) {
  const CountedJob job = shared;
  const Device device = *static_cast<const Device*>(model);
  const NoiseTables tables(job.noisy ? device.p.pulsed.dw_min_std : 0.0f);
  const bool additive = device.additive_noise();
  const float first = float(job.first * job.each);
  const F done(first);
  for (int64_t i = row0; i < row1; ++i) {
    if (job.lines == 1 && !(pulseline::absolute(job.counts[i]) > first)) continue;  // most of them
    for (const CountedRun* run = job.runs; run < job.runs + job.run_count; ++run)
      for (int64_t o = 0; o < run->count; o += kGroup) {
        const int64_t columns = run->count - o < kGroup ? run->count - o : int64_t(kGroup);
        const int64_t column = run->column + o, line = run->line + o;
        const int vectors = int((columns + kLanes - 1) / kLanes);
        const float* counts = job.counts + i * job.lines + line;
        const auto lanes = [&](int v) PL_LAMBDA {
          return columns - v * kLanes < kLanes ? columns - v * kLanes : int64_t(kLanes);
        };
        uint32_t busy = 0;
        for (int v = 0; v < vectors; ++v)
          busy |= uint32_t(any(done < absolute(load_lanes(counts + v * kLanes, lanes(v))))) << v;
        if (!busy) continue;
        DrawnWords room;
        const Words words = words_at(job.cells, device, i, column, vectors, room);
        for (; busy; busy &= busy - 1) {
          const int v = __builtin_ctz(busy);
          const Crosspoint<F> c = load_crosspoint(words, device, v * kLanes, lanes(v));
          pulse_lanes(job, device, tables, additive, c, i, column + v * kLanes, line + v * kLanes,
                      lanes(v));
        }
      }
  }
}

}  // namespace
}  // namespace pulseline::cpu
