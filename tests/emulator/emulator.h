#pragma once
// CUDA's block model on the CPU: every thread of a block is a fiber, blocks run one after the
// other. Kernel sources compile unmodified against the headers of this folder. What it is strict
// about:
//   - shared memory starts as NaN, which as integers is -1, or large in the reversed order without
//   faults;
//     asynchronous copies arrive when waited for, or at once;
//   - a warp runs until all its lanes wait for other warps, so that a missing barrier shows: the
//     first warp reads what the last one has not written. The order can be reversed;
//   - lanes that meet in different collectives, or wait for ever, are an error.
// Faults can be injected: see Settings.
#include <cstddef>
#include <cstdint>

namespace emulator {

struct Index3 {
  unsigned x, y, z;
};

struct Words {
  uint32_t v[16];
};

struct Settings {
  bool reversed = false;  // order of warps and of the lanes of a warp
  bool eager = false;     // asynchronous copies arrive at once instead of when waited for
  // Faults of launch number `launch` from here on (-1: of all): barriers number skip, skip + every,
  // ... of a block do nothing (-1: none; every = 0: one alone); every wait for copies leaves
  // `early` groups too many under way.
  int64_t launch = -1, skip = -1, every = 0, early = 0;
};
Settings& settings();
const char* complaint();  // why the last launch failed

// Runs body(context) in every thread of the grid. False: see complaint().
bool run(Index3 grid, Index3 block, size_t dynamic_shared, void (*body)(void*), void* context);

Index3 thread_index();
Index3 block_index();
Index3 block_size();
Index3 grid_size();

// All lanes of `mask` meet: each hands in `in`, compute fills what every lane gets back.
using Compute = void (*)(uint32_t mask, const Words* in, Words* out);
Words collective(const char* what, uint32_t mask, const Words& in, Compute compute);
void barrier();
void* dynamic_shared();
void* shared(const void* declaration, size_t bytes);  // one per block and declaration
// Copies `bytes` and fills up to `size`, to which `to` (and `from`, if read) must be aligned.
void copy_async(void* to, const void* from, size_t size, size_t bytes);
inline void copy_async(void* to, const void* from, size_t size) {
  copy_async(to, from, size, size);
}
void copies_commit();
void copies_wait(int left);

}  // namespace emulator
