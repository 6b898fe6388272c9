#pragma once
// CUDA's block model on the CPU: every thread of a block is a fiber, blocks run one after the other.
// Kernel sources compile unmodified against the headers of this folder. What it is strict about:
//   - shared memory starts as all ones (NaN); asynchronous copies arrive only when waited for;
//   - threads run one after the other until they wait, so that a missing barrier shows: the first
//     thread reads what the last one has not written. The order can be reversed;
//   - lanes that meet in different collectives, or wait for ever, are an error.
// Faults can be injected: see Fault.
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
  bool reversed = false;      // order of threads
  int64_t skip_barrier = -1;  // number, within a block, of the barrier that does nothing
  int64_t early_copies = 0;   // groups of copies left out by every wait: 1 waits for one too few
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
void copy_async(void* to, const void* from, size_t bytes);
void copies_commit();
void copies_wait(int left);

}  // namespace emulator
