#pragma once
// Working memory of one calling thread: grows to what its largest call needed and is then reused,
// so that a call neither allocates nor faults pages in. Concurrent callers have one each.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

namespace pulseline::cpu {

class Scratch {
 public:
  static Scratch& of_thread() {
    static thread_local Scratch scratch;
    scratch.reset();
    return scratch;
  }
  ~Scratch() {
    for (void* p : extra_) std::free(p);
    std::free(base_);
  }
  template <class T>
  T* take(int64_t count) {  // 64-byte aligned, uninitialised, padded by 64 bytes
    const size_t bytes = (size_t(count) * sizeof(T) + 127) & ~size_t(63);
    if (used_ + bytes > capacity_) return static_cast<T*>(overflow(bytes));
    T* p = reinterpret_cast<T*>(base_ + used_);
    used_ += bytes;
    return p;
  }

 private:
  void reset() {
    if (!extra_.empty()) {
      for (void* p : extra_) std::free(p);
      extra_.clear();
      std::free(base_);
      base_ = nullptr;  // what follows may throw
      const size_t wanted = wanted_;
      capacity_ = used_ = wanted_ = 0;
      base_ = static_cast<char*>(allocate(wanted));
      capacity_ = wanted;
    }
    used_ = wanted_ = 0;
  }
  void* overflow(size_t bytes) {
    extra_.reserve(extra_.size() + 1);  // so that nothing throws once there is memory to free
    void* p = allocate(bytes);
    extra_.push_back(p);
    wanted_ += bytes;
    if (extra_.size() == 1) wanted_ += capacity_;
    return p;
  }
  static void* allocate(size_t bytes) {
    void* p = std::aligned_alloc(64, (bytes + 63) & ~size_t(63));
    if (!p) throw std::bad_alloc();
    return p;
  }

  char* base_ = nullptr;
  size_t capacity_ = 0, used_ = 0, wanted_ = 0;
  std::vector<void*> extra_;
};

}  // namespace pulseline::cpu
