#pragma once
// The nodal equations of one physical tile with wires, solved by one block for a few samples side
// by side: core/wires.h with the order of sums of cpu/wires.cpp, hence its bits, whatever the
// number of samples (lanes). A thread takes whole lines: a word line is one input, a bit line one
// output. Every pass over a vector does all that it can:
//   word forward    p = z + turn p, s = G p, eliminated along the word line
//   word backward   s = (B - G A^-1 G) p, p s
//   bit forward     x += step p, r -= step s, z (in the place of s) eliminated along the bit line
//   bit backward    z = B^-1 r, r z
// A sample that has converged keeps its x: step and turn are 0.
#include "core/wires.h"
#include "cuda/read_device.h"

namespace pulseline::cuda {

constexpr int kNodalThreads = 512, kMostLanes = 8;

// One array of conductances, inputs i < n and outputs j < m counted from driver and sense end.
struct NodalArray {
  const float* w;  // of (0, 0)
  int32_t by_input, by_output;
  const double *word, *bit;  // [n][m] inverse pivots of the systems of word and of bit lines
  int32_t n, m;
  Wire wire;
  int array;  // 0: positive weights, 1: negative ones
  // Read-only: these loads need not wait for stores to the vectors.
  PL_DEVICE double g(int i, int j) const {
    return conductance(__ldg(w + (int64_t(i) * by_input + int64_t(j) * by_output)), array);
  }
  PL_DEVICE double word_pivot(int i, int j) const { return __ldg(word + (i * m + j)); }
  PL_DEVICE double bit_pivot(int i, int j) const { return __ldg(bit + (i * m + j)); }
};

struct Pivots {  // inverse, [2][rows * cols]: by array, tile by tile [n][m]
  double *word, *bit;
};
PL_DEVICE int64_t pivot_offset(const ReadJob& j, Range in, Range out, int array) {
  return array * j.args.rows * j.args.cols + out.first * j.inputs +
         in.first * (out.last - out.first);
}

// A tile, its lines counted from driver and sense end: see core/wires.h.
PL_DEVICE NodalArray array_of(const ReadJob& j, const Pivots& pivots, Range in, Range out,
                              int array) {
  const ReadArgs& a = j.args;
  NodalArray t = {};
  t.w = a.transposed ? a.w + (in.last - 1) * a.cols + out.last - 1
                     : a.w + out.first * a.cols + in.first;
  t.by_input = a.transposed ? -a.cols : 1;
  t.by_output = a.transposed ? -1 : a.cols;
  t.word = pivots.word + pivot_offset(j, in, out, array);
  t.bit = pivots.bit + pivot_offset(j, in, out, array);
  t.n = in.last - in.first;
  t.m = out.last - out.first;
  t.wire = {1.0 / j.chain.wire_resistance};
  t.array = array;
  return t;
}

// Of one block: vectors are [n][m][lanes].
struct NodalWork {
  double *x, *r, *p, *s;
  double* parts;        // [lines][lanes] of a dot product
  double *step, *turn;  // [lanes], shared
  int lanes, shift;     // lanes = 1 << shift

  PL_DEVICE double total(int lines) const {  // for lane threadIdx.x
    double sum = 0.0;
    for (int line = 0; line < lines; ++line) sum += parts[line * lanes + threadIdx.x];
    return sum;
  }
};

// Calls body(line, lane, line * lanes + lane) for this thread's lines.
template <class Body>
PL_DEVICE void for_lines(const NodalWork& k, int lines, Body body) {
  for (int t = threadIdx.x; t < lines * k.lanes; t += kNodalThreads)
    body(t >> k.shift, int(t & (k.lanes - 1)), t);
}

// r = G A^-1 drive; `input` gives what a line carries.
template <class Input>
PL_DEVICE void drive_words(const NodalArray& array, const NodalWork& work, Input input) {
  const NodalArray a = array;
  const NodalWork k = work;
  for_lines(k, a.n, [&](int i, int lane, int) {
    double* r = k.r + i * a.m * k.lanes + lane;
    double v = a.wire.current(double(input(i, lane)));
    r[0] = v;
#pragma unroll 1
    for (int j = 1; j < a.m; ++j) {
      v = eliminate(0.0, a.wire.ratio(a.word_pivot(i, j - 1)), v);
      r[j * k.lanes] = v;
    }
    double from_next = 0.0;
#pragma unroll 1
    for (int j = a.m - 1; j >= 0; --j) {
      v = substitute(r[j * k.lanes], from_next, a.word_pivot(i, j));
      r[j * k.lanes] = v * a.g(i, j);
      from_next = a.wire.current(v);
    }
  });
}

// s = G v eliminated forward along the word lines; `load` gives v at an offset.
template <class Load>
PL_DEVICE void forward_words(const NodalArray& array, const NodalWork& work, Load load) {
  const NodalArray a = array;
  const NodalWork k = work;
  for_lines(k, a.n, [&](int i, int lane, int) {
    int at = i * a.m * k.lanes + lane;
    double v = a.g(i, 0) * load(at, lane);
    k.s[at] = v;
#pragma unroll 1
    for (int j = 1; j < a.m; ++j) {
      at += k.lanes;
      v = eliminate(a.g(i, j) * load(at, lane), a.wire.ratio(a.word_pivot(i, j - 1)), v);
      k.s[at] = v;
    }
  });
}

// s = (B - G A^-1 G) v from there; parts of v s.
PL_DEVICE void backward_words(const NodalArray& array, const NodalWork& work, const double* v) {
  const NodalArray a = array;
  const NodalWork k = work;
  const int width = a.m * k.lanes;
  for_lines(k, a.n, [&](int i, int lane, int t) {
    int at = (i * a.m + a.m - 1) * k.lanes + lane;
    double from_next = 0.0, part = 0.0;
#pragma unroll 1
    for (int j = a.m - 1; j >= 0; --j, at -= k.lanes) {
      const double solved = substitute(k.s[at], from_next, a.word_pivot(i, j));
      from_next = a.wire.current(solved);
      const double above = i > 0 ? v[at - width] : 0.0, below = i + 1 < a.n ? v[at + width] : 0.0;
      const double g = a.g(i, j);
      const double s = a.wire.reduced(a.wire.diagonal(g, i == 0), v[at], above + below, g, solved);
      k.s[at] = s;
      part += v[at] * s;
    }
    k.parts[t] = part;
  });
}

// z = B^-1 r along the bit lines, parts of r z; `load` gives r at an offset.
template <class Load>
PL_DEVICE void solve_bits(const NodalArray& array, const NodalWork& work, double* z, Load load) {
  const NodalArray a = array;
  const NodalWork k = work;
  const int width = a.m * k.lanes;
  for_lines(k, a.m, [&](int j, int lane, int t) {
    double v = load(t, lane);
    z[t] = v;
#pragma unroll 1
    for (int i = 1; i < a.n; ++i) {
      v = eliminate(load(i * width + t, lane), a.wire.ratio(a.bit_pivot(i - 1, j)), v);
      z[i * width + t] = v;
    }
    double from_next = 0.0, part = 0.0;
#pragma unroll 1
    for (int i = a.n - 1; i >= 0; --i) {
      v = substitute(z[i * width + t], from_next, a.bit_pivot(i, j));
      z[i * width + t] = v;
      part += k.r[i * width + t] * v;
      from_next = a.wire.current(v);
    }
    k.parts[t] = part;
  });
}

// x: bit line voltages of the array. Both structs lie in shared memory: a pass copies what it needs
// into registers, no longer than it needs it. Ends with a barrier.
template <class Input>
PL_DEVICE void solve_nodes(const NodalArray& a, const NodalWork& k, double tolerance, Input input) {
  const bool leads = int(threadIdx.x) < k.lanes;  // holds the numbers of its lane
  Descent mine = {0.0, 0.0};
  drive_words(a, k, input);
  __syncthreads();
  solve_bits(a, k, k.x, [&](int at, int) { return k.r[at]; });
  __syncthreads();
  if (leads) mine.limit = Descent::limit_of(k.total(a.m), tolerance);
  forward_words(a, k, [&](int at, int) { return k.x[at]; });
  __syncthreads();  // of the parts
  backward_words(a, k, k.x);
  __syncthreads();
  solve_bits(a, k, k.s, [&](int at, int) { return k.r[at] = k.r[at] - k.s[at]; });
  __syncthreads();
  if (leads) mine.square = k.total(a.m);
  for (int round = 0; round < kMostIterations; ++round) {
    if (!__syncthreads_or(leads && mine.running())) return;
    if (round == 0)
      forward_words(a, k, [&](int at, int) { return k.p[at] = k.s[at]; });
    else
      forward_words(a, k,
                    [&](int at, int lane) { return k.p[at] = k.s[at] + k.turn[lane] * k.p[at]; });
    __syncthreads();
    backward_words(a, k, k.p);
    __syncthreads();
    if (leads) k.step[threadIdx.x] = mine.step(k.total(a.n));
    __syncthreads();
    solve_bits(a, k, k.s, [&](int at, int lane) {
      k.x[at] = k.x[at] + k.step[lane] * k.p[at];
      return k.r[at] = k.r[at] - k.step[lane] * k.s[at];
    });
    __syncthreads();
    if (leads) k.turn[threadIdx.x] = mine.turn(k.total(a.m));
  }
  // What has not converged reads as NaN: the host does not wait for a word of refusal.
  if (leads) k.step[threadIdx.x] = mine.running() ? __builtin_nan("") : 0.0;
  __syncthreads();
  const int last = (a.n - 1) * a.m * k.lanes;
  for_lines(k, a.m, [&](int, int lane, int t) { k.x[last + t] = k.x[last + t] + k.step[lane]; });
  __syncthreads();
}

}  // namespace pulseline::cuda
