#pragma once
// The read on the GPU: everything but the products, which are torch's (one per segment of inputs)
// unless `fused` makes them.
//   wires   effective weights, if wires have resistance (closed form)
//   input   noise management and DACs: what the lines of each pass carry, and |q|^2 per segment
//   output  noise, ADC, scale and accumulation of one segment's sums
//   fused   products and `output` of all segments at once, on tensor cores
//   repeat  bound management: saturated samples again, products included, without the host
// Where wires are solved (ir_drop = exact) alpha comes from `input`, the rest is one kernel,
// `nodal`. A sample with a value that is not finite gets alpha = NaN and NaN outputs: to refuse it,
// as the CPU does, would make the host wait.
#include <cstdint>

#include "core/read.h"
#include "cuda/launch.h"

namespace pulseline::cuda {

struct ReadJob {
  ReadArgs args;
  Chain chain;
  int64_t inputs, outputs, segments, blocks;
  int32_t passes;
  float* alpha;             // [batch]
  float *q[2], *square[2];  // per pass [batch][inputs]; squares: pcm noise alone
  float* norm[2];           // per pass [segments][batch]
  uint8_t* saturated;       // [blocks][batch]; nullptr: no bound management
  const float* effective;   // [rows][cols] weights behind wires; nullptr: wires are ideal
};

// Products of one segment for outputs out0..out1, per pass [batch][out1 - out0].
struct ReadSums {
  const float *sums[2], *squares[2];
  int64_t segment, out0, out1;
};

// Voltage profiles of wires, see core/wires.h; [2]: positive and negative weights.
struct Wires {
  double *word, *bit;          // [2][rows][cols] along word lines and bit lines of every tile
  double *word_end, *bit_end;  // [2][tile rows][cols], [2][rows][tile columns]
  float* effective;            // [rows][cols] out
};

// How a solved read is cut: samples of a block, blocks at work at a time, memory of each.
struct NodalPlan {
  int32_t lanes, shift;     // lanes = 1 << shift
  int64_t inputs, outputs;  // of the largest tile
  int64_t groups, slots;    // of samples; blocks
  size_t slot_bytes, bytes;
};
// A block takes as many samples as leave `blocks` blocks within `memory` bytes, at most 8.
NodalPlan nodal_plan(const ReadJob& job, int64_t blocks, int64_t memory);

inline ReadJob read_job(const ReadArgs& args, const Chain& chain) {
  ReadJob j = {};
  j.args = args;
  j.chain = chain;
  j.inputs = args.transposed ? args.rows : args.cols;
  j.outputs = args.transposed ? args.cols : args.rows;
  j.segments = ceil_div(j.inputs, args.tile_in);
  j.blocks = ceil_div(j.outputs, args.tile_out);
  j.passes = chain.passes == kOnePass ? 1 : 2;
  return j;
}

// Last: the array's counter goes on by the samples of the call.
cudaError_t launch_read_advance(const ReadJob& job, cudaStream_t stream);
cudaError_t launch_read_wires(const ReadJob& job, const Wires& wires, cudaStream_t stream);
// Row block 0 comes first: it finds alpha. Further ones have draws of their own, which matters
// where inputs have noise or round stochastically.
cudaError_t launch_read_input(const ReadJob& job, int64_t block, cudaStream_t stream);
cudaError_t launch_read_output(const ReadJob& job, const ReadSums& sums, cudaStream_t stream);
// The reads that `fused` takes: their outputs need one sum a pass, an int counts what they have.
inline bool can_fuse(const ReadJob& job) {
  const int64_t most = int64_t(1) << 30;
  return !job.chain.pcm && job.inputs <= most && job.outputs <= most && job.args.batch <= most;
}
// Outputs out0..out1 of all segments, in place of products and `output`.
cudaError_t launch_read_fused(const ReadJob& job, int64_t out0, int64_t out1, cudaStream_t stream);
// converted: scratch [batch][outputs].
cudaError_t launch_read_repeat(const ReadJob& job, float* converted, cudaStream_t stream);
// After `input`. memory: plan.bytes, aligned to 256.
cudaError_t launch_read_nodal(const ReadJob& job, const NodalPlan& plan, void* memory,
                              cudaStream_t stream);

}  // namespace pulseline::cuda
