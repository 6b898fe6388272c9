// The update of one train word, a sample of a short train: crosspoints lie far apart in memory and
// few of them are hit. So what is hit is looked for first, one run of a row at a time, and asked of
// memory while the run before is pulsed. Included by kernels.inl.

namespace pulseline::cpu {
namespace {

// Groups of columns in a run of a row, and those of its vectors that are hit.
constexpr int kRunGroups = 32;
struct HitRun {
  int64_t row = 0;
  int count = 0;
  struct {
    int32_t group;
    uint32_t vectors;
  } hit[kRunGroups];
};

template <class Device>
PL_HD void prefetch_crosspoints(const PlacedUpdate& a, int64_t o) {
  __builtin_prefetch(a.w + o, 1);
  __builtin_prefetch(a.step + o);
  __builtin_prefetch(a.bound + o);
  if (Device::kSlopes) __builtin_prefetch(a.slope + o);
}

// Fills `run` with what row i hits of groups group0..group1.
template <class Device>
PL_HD void find_hits(const UpdateJob& job, const PlacedUpdate& a, int64_t i, int64_t group0,
                     int64_t group1, HitRun& run) {
  constexpr int kEach = kGroup / kLanes;
  const U row_word(job.row_words[i]);
  run.row = i;
  run.count = 0;
  for (int64_t g = group0; g < group1; ++g) {
    if (!job.column_hits[g]) continue;
    uint32_t vectors = 0;
#pragma GCC unroll kUnroll
    for (int v = 0; v < kEach; ++v) {
      const int64_t j = g * kGroup + v * kLanes;
      if (!any(load(job.column_words + j) & row_word)) continue;
      vectors |= 1u << v;
      prefetch_crosspoints<Device>(a, i * a.cols + j);
    }
    run.hit[run.count] = {int32_t(g), vectors};
    run.count += vectors != 0;
  }
}

// One vector of crosspoints: the same operations as in Block, whose others are left alone.
template <class Device, bool ADDITIVE>
PL_HD void pulse_vector(const UpdateJob& job, const PlacedUpdate& a, const Device& device,
                        const NoiseTables& tables, int64_t i, int64_t j, const uint32_t* up,
                        int vector, F xi) {
  const int64_t o = i * a.cols + j, n = a.cols - j;
  const Words words = {a.step + o, Device::kSlopes ? a.slope + o : nullptr, a.bound + o};
  const bool whole = n >= kLanes;
  const F before = whole ? load(a.w + o) : load_partial(a.w + o, n);
  const Crosspoint<F> c = load_crosspoint(words, device, 0, whole ? kLanes : n);
  const U count = popcount(load(job.column_words + j) & U(job.row_words[i]));
  F w = pulse(device, c, before, load_mask(up, vector), to_float(count), tables.root(count), xi,
              ADDITIVE);
  w = w + F(0.0f);
  if (any(is_nan(before))) w = keep_nan(before, w);
  whole ? store(a.w + o, w) : store_partial(a.w + o, w, n);
}

template <class Device, bool ADDITIVE>
PL_HD void pulse_run(const UpdateJob& job, const PlacedUpdate& a, const Device& device,
                     const NoiseTables& tables, const HitRun& run) {
  constexpr int kEach = kGroup / kLanes;
  const uint32_t* up = job.column_up[job.row_negative[run.row] & 1];
  for (int h = 0; h < run.count; ++h) {
    const int64_t g = run.hit[h].group;
    F xi[kEach];
    BlockNoise<1>(a, run.row, g * kGroup).draw_sample(job, tables, 0, xi);
#pragma GCC unroll kUnroll
    for (int v = 0; v < kEach; ++v)
      if (run.hit[h].vectors >> v & 1u)
        pulse_vector<Device, ADDITIVE>(job, a, device, tables, run.row, g * kGroup + v * kLanes,
                                       up + g, v, xi[v]);
  }
}

template <class Device, bool ADDITIVE>
void single_rows(const UpdateJob& shared, const Device& model, int64_t row0, int64_t row1) {
  const UpdateJob job = shared;
  const PlacedUpdate a = *job.args;
  const Device device = model;
  const NoiseTables tables(device.p.pulsed.dw_min_std);
  const int64_t groups = (a.cols + kGroup - 1) / kGroup;
  HitRun runs[2];
  int now = 0;
  for (int64_t i = row0; i < row1; ++i) {
    if (!job.row_words[i]) continue;
    for (int64_t g = 0; g < groups; g += kRunGroups, now ^= 1) {
      find_hits<Device>(job, a, i, g, g + kRunGroups < groups ? g + kRunGroups : groups, runs[now]);
      pulse_run<Device, ADDITIVE>(job, a, device, tables, runs[now ^ 1]);
    }
  }
  pulse_run<Device, ADDITIVE>(job, a, device, tables, runs[now ^ 1]);
}

// Whether a job is one.
inline bool is_single(const UpdateJob& job) {
  return job.count == 1 && !job.drawn && !job.taps && !job.rank_columns && !splits(*job.args);
}

}  // namespace
}  // namespace pulseline::cpu
