// The updates that keep the order of samples, each by the kernel that fits the call. Included by
// kernels.inl.

namespace pulseline::cpu {
namespace {

// A long chain of dependent operations wants two groups of columns at a time, if most samples hit
// both of them anyway.
template <class Device>
bool wide(const UpdateJob& job) {
  if (!Device::kLongStep || kLanes != 16) return false;
  const int64_t n = job.padded_cols / kGroup * job.words;
  int64_t hits = 0;
  for (int64_t q = 0; q < n; ++q) hits += __builtin_popcountll(job.column_hits[q]);
  return hits * kGroup * 5 > job.count * job.args->cols * 4;
}

template <class Device, class Noise>
void exact_tapped(const UpdateJob& job, const Device& d, int64_t row0, int64_t row1) {
  if (Device::kAdditive && d.additive_noise())
    return exact_rows<Device, Device::kAdditive, 1, Noise, Tapped>(job, d, row0, row1);
  exact_rows<Device, false, 1, Noise, Tapped>(job, d, row0, row1);
}

template <class Device>
void exact(const UpdateJob& job, const void* device, int64_t row0, int64_t row1) {
  constexpr int kWide = Device::kLongStep && kLanes == 16 ? 2 : 1;
  const Device& d = *static_cast<const Device*>(device);
  if (job.taps) {
    if (job.rank_columns) return exact_tapped<Device, RankNoise>(job, d, row0, row1);
    return exact_tapped<Device, BlockNoise<1>>(job, d, row0, row1);
  }
  if (job.rank_columns) {
    if (Device::kAdditive && d.additive_noise())
      return exact_rows<Device, Device::kAdditive, 1, RankNoise>(job, d, row0, row1);
    return exact_rows<Device, false, 1, RankNoise>(job, d, row0, row1);
  }
  if (is_single(job)) {
    if (Device::kAdditive && d.additive_noise())
      return single_rows<Device, Device::kAdditive>(job, d, row0, row1);
    return single_rows<Device, false>(job, d, row0, row1);
  }
  const bool split = splits(*job.args);
  if (Device::kAdditive && d.additive_noise())
    return split ? exact_rows<Device, Device::kAdditive, 1, SplitNoise>(job, d, row0, row1)
                 : exact_rows<Device, Device::kAdditive, 1>(job, d, row0, row1);
  if (split) return exact_rows<Device, false, 1, SplitNoise>(job, d, row0, row1);
  if (wide<Device>(job)) return exact_rows<Device, false, kWide>(job, d, row0, row1);
  exact_rows<Device, false, 1>(job, d, row0, row1);
}
template <class Device>
void strict(const UpdateJob& job, const void* device, int64_t row0, int64_t row1) {
  const Device& d = *static_cast<const Device*>(device);
  if (splits(*job.args)) return strict_rows<Device, 1, SplitNoise>(job, d, row0, row1);
  if (job.taps) return strict_rows<Device, 1, BlockNoise<1>, Tapped>(job, d, row0, row1);
  strict_rows(job, d, row0, row1);
}
template <class Device>
void expected(const UpdateJob& job, const void* device, int64_t row0, int64_t row1) {
  const Device& d = *static_cast<const Device*>(device);
  if (job.taps) return expected_rows<Device, Tapped>(job, d, row0, row1);
  expected_rows(job, d, row0, row1);
}

}  // namespace
}  // namespace pulseline::cpu
