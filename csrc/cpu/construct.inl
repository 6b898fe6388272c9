// What a crosspoint keeps for life, drawn in vectors: see core/parameters.h. Included by
// kernels.inl.

namespace pulseline::cpu {
namespace {

PL_HD void store_words(uint32_t* p, U x, int64_t n) {
  store_lanes(reinterpret_cast<float*>(p), as_float(x), n);
}
template <class Device>
void construct(const ConstructJob& job, const void* model, int64_t row0, int64_t row1) {
  const Device device = *static_cast<const Device*>(model);
  const ParameterKeys keys = job.keys;
  for_vectors(row0, row1, job.cols, [&](int64_t i, int64_t j, int64_t at, int64_t n) PL_LAMBDA {
    const int64_t o = at - job.first * job.cols;
    const Stored<U> c = construct_crosspoint(device, draws_at(keys, i, job.col0 + j));
    store_words(job.out[0] + o, c.step, n);
    if (job.out[1]) store_words(job.out[1] + o, c.slope, n);
    store_words(job.out[2] + o, c.bound, n);
  });
}

void construct_retention(const ConstructJob& job, const void* params, int64_t row0, int64_t row1) {
  const RetentionParams p = *static_cast<const RetentionParams*>(params);
  const ParameterKeys keys = job.keys;
  for_vectors(row0, row1, job.cols, [&](int64_t i, int64_t j, int64_t at, int64_t n) PL_LAMBDA {
    const int64_t o = at - job.first * job.cols;
    const RetentionPairs<U> c = construct_retention(p, draws_at(keys, i, job.col0 + j));
    store_words(job.out[0] + o, c.fade, n);
    store_words(job.out[1] + o, c.walk, n);
  });
}

void initial_normals(const NormalsJob& job, int64_t row0, int64_t row1) {
  for_vectors(row0, row1, job.cols, [&](int64_t i, int64_t j, int64_t at, int64_t n) PL_LAMBDA {
    const int64_t o = at - job.first * job.cols;
    store_lanes(job.out + o, group_normal(i, job.col0 + j, job.key), n);
  });
}

}  // namespace
}  // namespace pulseline::cpu
