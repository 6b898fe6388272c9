#pragma once
// Products of `fused`: a block multiplies what kSamples samples carry by the weights of kWide
// outputs on tensor cores, kDepth inputs at a time, and is as good as fp32.
//
// A factor is split, v = high + low + rest: high has tf32's 11 bits of v, rounded, low the next 11,
// |low| <= 2^-11 |v|, |rest| <= 2^-23 |v|. A step of kDepth inputs sums low high + high low +
// high high from zero on tensor cores; the sums of steps add up in fp32, rounded. With u = 2^-24
// and S = sum |q w| over a segment of n inputs:
//   |error| <= (48 + ceil(n / 16)) u S
// 4 u of it from low low, 4 u from the rests, 40 u from truncation: hardware aligns the 9 terms of
// an instruction to the largest and cuts them off 2 u below it or later, then cuts the sum; two
// instructions have terms of full size, the others terms of 2^-11. A chain of fma has n u S.
// The order depends on the place in the segment alone: not on the batch, its cuts or the block.
#include "cuda/read_device.h"

namespace pulseline::cuda::fused {

constexpr int kDepth = 16, kWide = 64, kStages = 3;
constexpr int kWarpRows = 2, kWarpColumns = 2;  // of a block
constexpr int kThreads = 32 * kWarpRows * kWarpColumns;
constexpr int kTilesAcross = kWide / kWarpColumns / 8;  // a warp's mma tiles: so many outputs of 8,
template <int PASSES>
constexpr int kTilesDown = 4 / PASSES;  // so many samples of 16
template <int PASSES>
constexpr int kSamples = 16 * kTilesDown<PASSES> * kWarpRows;

// Which inputs, weights and outputs are 16-byte aligned wherever a thread's begin.
struct Alignment {
  bool q, w, y;
};

// Place of a lane: its warp's first sample and output within the block; g and t of mma fragments.
struct Lane {
  int row, column, g, t;
};
template <int PASSES>
PL_DEVICE Lane lane_of_thread() {
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  return {warp / kWarpColumns * 16 * kTilesDown<PASSES>, warp % kWarpColumns * 8 * kTilesAcross,
          lane / 4, lane % 4};
}
// A lane's outputs are 8 neighbours, 8 t + 0..7 of its warp's: mma tile n has every fourth output,
// so that column 2 t + c of tile n is output 8 t + 4 c + n.

// kDepth inputs of a block. A lane takes 4 neighbouring inputs in 16 bytes, all lanes without bank
// conflicts: two rows of kDepth are 128 bytes.
//   forward     w[place][k], place 8 n + g of a warp's outputs: output 4 g + n
//   transposed  w[k][outputs], quads of outputs exchanged: see quad_at
template <int PASSES>
struct alignas(16) Stage {
  float q[PASSES][kSamples<PASSES>][kDepth];
  float w[kDepth * kWide];
};
PL_DEVICE int output_at(int place) {
  return place / 32 * 32 + place % 8 * kTilesAcross + place % 32 / 8;
}
PL_DEVICE int quad_at(int k, int quad) { return k * kWide + (quad ^ (k / 4 * 2)) * 4; }
static_assert(kTilesAcross == 4 && kDepth == 16, "a lane reads 4 inputs, or 4 outputs, at a time");

// Inputs first..last of one step, at most kDepth.
struct Step {
  int first, last;
};
// Steps of one segment after the other; past the last one they are empty.
struct Cursor {
  int first = 0, last = 0;  // what is left of a segment
  PL_DEVICE Step next(const ReadJob& j) {
    if (first == last) {
      const int64_t left = j.inputs - last;
      last += int(left < j.args.tile_in ? left : j.args.tile_in);
    }
    const Step step = {first, first + kDepth < last ? first + kDepth : last};
    first = step.last;
    return step;
  }
};

// Which copies of 16 bytes are a thread's: inputs part.. of rows row, row + 32 and so on
// (transposed, W: outputs 4 quad.. of inputs across, across + 8).
struct Share {
  int row, part, across, quad;
  PL_DEVICE Share()
      : row(int(threadIdx.x) / (kDepth / 4)),
        part(int(threadIdx.x) % (kDepth / 4) * 4),
        across(int(threadIdx.x) / (kWide / 4)),
        quad(int(threadIdx.x) % (kWide / 4)) {}
};

// What a block reads: q of samples b0.., weights of outputs o0...
template <int PASSES, bool TRANSPOSED>
struct Source {
  const float* w;    // of this thread's first copy
  int64_t q_at;      // the same
  int b0, o0, out1;  // of the block; one past the last output
  PL_DEVICE Source(const ReadJob& j, int sample, int output, int end)
      : w(weights(j)), b0(sample), o0(output), out1(end) {
    const Share mine;
    q_at = int64_t(b0 + mine.row) * j.inputs + mine.part;
    w += TRANSPOSED ? mine.across * j.args.cols + o0 + mine.quad * 4
                    : int64_t(o0 + output_at(mine.row)) * j.args.cols + mine.part;
  }
  PL_DEVICE bool has_sample(const ReadJob& j, int row) const {
    return b0 + row < int(j.args.batch);
  }
  PL_DEVICE bool has_output(int n) const { return o0 + n < out1; }
  static PL_DEVICE const float* weights(const ReadJob& j) {
    return j.effective ? j.effective : j.args.w;
  }
};

// Bytes of four floats that lie before `end`.
PL_DEVICE int bytes_before(int first, int end) {
  const int left = end - first;
  return left <= 0 ? 0 : left < 4 ? left * 4 : 16;
}

constexpr int kBytes = kDepth * 4;  // of a row in shared memory
template <int PASSES, bool TRANSPOSED>
PL_DEVICE void copy_inputs(const ReadJob& j, const Source<PASSES, TRANSPOSED>& from, Step k,
                           const Share& mine, Stage<PASSES>& stage) {
  constexpr int kRows = kThreads * 4 / kDepth;  // that threads copy at once
  const int bytes = bytes_before(mine.part, k.last - k.first);
  const SharedAddress to = shared_address(&stage.q[0][mine.row][mine.part]);
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass)
#pragma unroll
    for (int n = 0; n < kSamples<PASSES>; n += kRows)
      copy16_filled(to + (pass * kSamples<PASSES> + n) * kBytes,
                    j.q[pass] + (from.q_at + k.first + n * j.inputs),
                    from.has_sample(j, mine.row + n) ? bytes : 0);
}
template <int PASSES, bool TRANSPOSED>
PL_DEVICE void copy_weights(const ReadJob& j, const Source<PASSES, TRANSPOSED>& from, Step k,
                            const Share& mine, Stage<PASSES>& stage) {
  const int64_t cols = j.args.cols;
  if (TRANSPOSED) {
    constexpr int kRows = kThreads * 4 / kWide;
    const int bytes = bytes_before(from.o0 + mine.quad * 4, from.out1);
#pragma unroll
    for (int n = 0; n < kDepth; n += kRows)
      copy16_filled(shared_address(stage.w + quad_at(mine.across + n, mine.quad)),
                    from.w + (k.first + n) * cols, mine.across + n < k.last - k.first ? bytes : 0);
  } else {
    constexpr int kRows = kThreads * 4 / kDepth;
    static_assert(kRows % 32 == 0, "output_at(n + kRows) is output_at(n) + kRows");
    const int output = output_at(mine.row), bytes = bytes_before(mine.part, k.last - k.first);
    const SharedAddress to = shared_address(stage.w + mine.row * kDepth + mine.part);
#pragma unroll
    for (int n = 0; n < kWide; n += kRows)
      copy16_filled(to + n * kBytes, from.w + (k.first + n * cols),
                    from.has_output(output + n) ? bytes : 0);
  }
}

// The same, one float at a time, where 16 bytes are not aligned.
template <int PASSES, bool TRANSPOSED>
PL_DEVICE void copy_single_inputs(const ReadJob& j, const Source<PASSES, TRANSPOSED>& from, Step k,
                                  Stage<PASSES>& stage) {
#pragma unroll 1
  for (int n = int(threadIdx.x); n < kSamples<PASSES> * kDepth; n += kThreads) {
    const int row = n / kDepth, part = n % kDepth;
    const bool there = from.has_sample(j, row) && part < k.last - k.first;
#pragma unroll
    for (int pass = 0; pass < PASSES; ++pass)
      copy4_filled(shared_address(&stage.q[pass][row][part]),
                   j.q[pass] + (int64_t(from.b0 + row) * j.inputs + k.first + part), there ? 4 : 0);
  }
}
template <int PASSES, bool TRANSPOSED>
PL_DEVICE void copy_single_weights(const ReadJob& j, const Source<PASSES, TRANSPOSED>& from, Step k,
                                   Stage<PASSES>& stage) {
#pragma unroll 1
  for (int n = int(threadIdx.x); n < kWide * kDepth; n += kThreads) {
    // Neighbours in memory go to neighbouring threads.
    const int part = TRANSPOSED ? n / kWide : n % kDepth;
    const int output = TRANSPOSED ? n % kWide : output_at(n / kDepth);
    const int64_t i = k.first + part, o = from.o0 + output;
    const float* to = stage.w + (TRANSPOSED ? quad_at(part, output / 4) + output % 4 : n);
    copy4_filled(shared_address(to),
                 from.weights(j) + (TRANSPOSED ? i * j.args.cols + o : o * j.args.cols + i),
                 from.has_output(output) && part < k.last - k.first ? 4 : 0);
  }
}

// This thread's part of a step, zeros beyond. An empty one copies nothing and ends a group all the
// same.
template <int PASSES, bool TRANSPOSED>
PL_DEVICE void fetch(const ReadJob& j, const Source<PASSES, TRANSPOSED>& from, Alignment aligned,
                     Step k, Stage<PASSES>& stage) {
  if (k.first < k.last) {
    const Share mine;
    if (aligned.q)
      copy_inputs(j, from, k, mine, stage);
    else
      copy_single_inputs(j, from, k, stage);
    if (aligned.w)
      copy_weights(j, from, k, mine, stage);
    else
      copy_single_weights(j, from, k, stage);
  }
  copies_commit();
}

// ---- products ----

struct Split {
  uint32_t high, low;
};
PL_DEVICE Split split(float v) {
  const uint32_t high = (as_bits(v) + 0x1000u) & 0xffffe000u;
  return {high, as_bits(v - as_float(high))};
}

// Factors of a lane in a step: inputs 4 t + 0..3, two of them in each of two mma.
struct Weights {
  Split v[kDepth / 4][kTilesAcross];
};
template <bool TRANSPOSED>
PL_DEVICE void load_weights(const float* from, Weights& w) {
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const float4 v = load4(from + n * (TRANSPOSED ? kWide : 8 * kDepth));
    const float each[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int m = 0; m < 4; ++m) (TRANSPOSED ? w.v[n][m] : w.v[m][n]) = split(each[m]);
  }
}

// Where a lane's factors begin in a stage.
PL_DEVICE int inputs_from(const Lane& at) { return (at.row + at.g) * kDepth + 4 * at.t; }
template <bool TRANSPOSED>
PL_DEVICE int weights_from(const Lane& at) {
  return TRANSPOSED ? quad_at(4 * at.t, at.column / 4 + at.g)
                    : (at.column + at.g) * kDepth + 4 * at.t;
}

// Fragments of 16 samples for both mma of a step.
struct Samples {
  uint32_t high[2][4], low[2][4];
};
PL_DEVICE Samples load_samples(const float* upper, const float* lower) {
  const float4 u = load4(upper), l = load4(lower);
  const float each[2][4] = {{u.x, l.x, u.y, l.y}, {u.z, l.z, u.w, l.w}};
  Samples s;
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const Split v = split(each[half][n]);
      s.high[half][n] = v.high;
      s.low[half][n] = v.low;
    }
  return s;
}

// sums += products of a step.
template <int PASSES, bool TRANSPOSED>
PL_DEVICE void multiply(const Stage<PASSES>& stage, const Lane& at,
                        float (&sums)[PASSES][kTilesDown<PASSES>][kTilesAcross][4]) {
  Weights w;
  load_weights<TRANSPOSED>(stage.w + weights_from<TRANSPOSED>(at), w);
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass)
#pragma unroll
    for (int m = 0; m < kTilesDown<PASSES>; ++m) {
      const float* q = &stage.q[pass][16 * m][0] + inputs_from(at);
      const Samples s = load_samples(q, q + 8 * kDepth);
      float step[kTilesAcross][4] = {};
#pragma unroll
      for (int half = 0; half < 2; ++half) {  // what is small comes first
#pragma unroll
        for (int n = 0; n < kTilesAcross; ++n)
          tf32_mma(step[n], s.low[half], w.v[2 * half][n].high, w.v[2 * half + 1][n].high, step[n]);
#pragma unroll
        for (int n = 0; n < kTilesAcross; ++n)
          tf32_mma(step[n], s.high[half], w.v[2 * half][n].low, w.v[2 * half + 1][n].low, step[n]);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int n = 0; n < kTilesAcross; ++n)
          tf32_mma(step[n], s.high[half], w.v[2 * half][n].high, w.v[2 * half + 1][n].high,
                   step[n]);
#pragma unroll
      for (int n = 0; n < kTilesAcross; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c) sums[pass][m][n][c] = sums[pass][m][n][c] + step[n][c];
    }
}

}  // namespace pulseline::cuda::fused
