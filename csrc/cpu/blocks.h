#pragma once
// The blocks of a block-diagonal matrix, one call each. Many small ones share threads, few large
// ones use all of them in turn.
#include <algorithm>

#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"

namespace pulseline::cpu {

// Block n of an update, at its place in the array.
inline PlacedUpdate block_of(const PlacedUpdate& all, int64_t rows, int64_t n) {
  PlacedUpdate a = all;
  a.rows = rows;
  a.row0 = n * rows;
  a.col0 = n * a.cols;
  const int64_t first = a.row0 * a.cols;
  a.w += first;
  a.step = all.step ? all.step + first : nullptr;
  a.slope = all.slope ? all.slope + first : nullptr;
  a.bound = all.bound ? all.bound + first : nullptr;
  a.x += a.col0;
  a.d += a.row0;
  return a;
}

inline PlacedRead block_of(const PlacedRead& all, int64_t rows, int64_t n) {
  PlacedRead a = all;
  a.rows = rows;
  const int64_t row0 = n * rows, col0 = n * a.cols;
  a.w += row0 * a.cols;
  a.input0 = a.transposed ? row0 : col0;
  a.output0 = a.transposed ? col0 : row0;
  a.x += a.input0;
  a.y += a.output0;
  return a;
}

// Where a value of any block is not finite.
inline Status check_finite(const PlacedUpdate& a, int64_t block_rows) {
  const int64_t blocks = block_rows ? a.rows / block_rows : 1;
  for (int64_t b = 0; b < a.batch; ++b) {
    if (table().absmax(a.x + b * a.x_stride, blocks * a.cols) >= kInfinity) return {1, b};
    if (table().absmax(a.d + b * a.d_stride, a.rows) >= kInfinity) return {2, b};
  }
  return {};
}

// body(arguments of a block, threads) for all of them; the first refusal is returned. block_rows 0:
// there is one.
template <class Args, class Body>
Status over_blocks(const Args& all, int64_t block_rows, int threads, Body body) {
  if (block_rows == 0 || block_rows == all.rows) return body(all, threads);
  const int64_t blocks = all.rows / block_rows;
  const bool shared = blocks >= threads;
  Status* found = static_cast<Status*>(std::calloc(size_t(blocks), sizeof(Status)));
  if (!found) throw std::bad_alloc();
  Thrown thrown;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1 && shared)
  for (int64_t n = 0; n < blocks; ++n)
    thrown.run([&] { found[n] = body(block_of(all, block_rows, n), shared ? 1 : threads); });
  Status all_of = {};
  for (int64_t n = 0; n < blocks; ++n) {
    const bool first = found[n].source && (!all_of.source || found[n].sample < all_of.sample);
    const int64_t saturated = all_of.saturated + found[n].saturated;
    if (first) all_of = found[n];
    all_of.saturated = saturated;
  }
  std::free(found);
  thrown.rethrow();
  return all_of;
}

}  // namespace pulseline::cpu
