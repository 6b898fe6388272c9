#pragma once
// OpenMP loops over chunks. A second spinning pool beside torch's costs 2-11x, so there is none:
// the compiled module shares torch's runtime, and small calls stay serial.
#include <atomic>
#include <cstdint>
#include <exception>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace pulseline::cpu {

// Crosspoint-samples below which a second thread does not pay (about 20 us of work).
constexpr int64_t kSerialCrosspoints = 200000;

inline int thread_index() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// What a loop over threads throws: the first exception goes on after the loop, whose other turns
// are skipped. None may leave the loop itself.
class Thrown {
 public:
  template <class Body>
  void run(Body body) {
    if (thrown_.load(std::memory_order_relaxed)) return;
    try {
      body();
    } catch (...) {
      if (!thrown_.exchange(true)) what_ = std::current_exception();
    }
  }
  void rethrow() const {
    if (what_) std::rethrow_exception(what_);
  }

 private:
  std::atomic<bool> thrown_{false};
  std::exception_ptr what_;
};

template <class Body>
void parallel_chunks(int64_t n, int64_t chunk, int threads, Body body) {
  if (threads <= 1 || n <= chunk) return body(int64_t(0), n);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t i = 0; i < n; i += chunk) body(i, i + chunk < n ? i + chunk : n);
}

}  // namespace pulseline::cpu
