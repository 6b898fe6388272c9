#pragma once
// The CPU backend as the bindings see it: whole operations on raw pointers.
// `threads` is the largest number of OpenMP threads; results never depend on it.
#include <cstdint>

#include "core/args.h"
#include "core/chain.h"

namespace pulseline::cpu {

struct Status {  // where a value is not finite; source 0: none, 1: x, 2: d
  int32_t source = 0;
  int64_t sample = 0;
};

// Pulsed update by device model `device` (index in PULSELINE_DEVICES) with `params` in the order of
// its kFields. Nothing is written unless every x and d is finite.
Status update(const UpdateArgs& args, int device, const float* params, int threads);

// Outer product W -= lr d x^T, samples in order, one fma each: the ideal device.
Status update_ideal(const UpdateArgs& args, int threads);

// Stored pairs of every crosspoint, see devices/pulsed.h; two planes of slopes if kExtra.
void construct(int device, const float* params, const Stream& stream, int64_t rows, int64_t cols,
               uint32_t* step, uint32_t* slope, uint32_t* bound, int threads);

Status read(const ReadArgs& args, int threads);

// The same with options of the converter chain. `average` is written unless a value is not finite.
Status read_chain(const ReadArgs& args, const Chain& chain, int threads);

// Standard normals of `kInitialisation`, index = column, k = row.
void initial_normals(const Stream& stream, int64_t rows, int64_t cols, float* out);

}  // namespace pulseline::cpu
