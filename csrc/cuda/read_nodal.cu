// The read through wires that are solved: as cpu/chain.cpp does it, a block is a row of tiles of a
// few samples. Tile by tile it converts the inputs, solves the nodal equations of both arrays and
// all passes, converts the outputs, and repeats what saturates with beta doubled and fresh draws.
// Nothing waits for the host: how often a block iterates is decided by the block.
#include "cuda/read_nodal.h"

namespace pulseline::cuda {
namespace {

constexpr int kPivotThreads = 128;

// A thread is a word line or a bit line of one tile; blockIdx.y the array.
__global__ void __launch_bounds__(kPivotThreads, 4)
    pivots_kernel(const ReadJob j, const Pivots pivots) {
  const int64_t words = j.inputs * j.blocks, bits = j.outputs * j.segments;
  const int64_t t = int64_t(blockIdx.x) * kPivotThreads + threadIdx.x;
  if (t >= words + bits) return;
  const bool word = t < words;
  const int64_t line = word ? t % j.inputs : (t - words) % j.outputs;
  const int64_t across = word ? t / j.inputs : (t - words) / j.outputs;
  const Range in = range_of(word ? line / j.args.tile_in : across, j.args.tile_in, j.inputs);
  const Range out = range_of(word ? across : line / j.args.tile_out, j.args.tile_out, j.outputs);
  const NodalArray a = array_of(j, pivots, in, out, int(blockIdx.y));
  const int64_t at = pivot_offset(j, in, out, int(blockIdx.y));
  double inverse = 0.0;
  if (word) {
    const int64_t i = line - in.first;
    for (int64_t k = 0; k < a.m; ++k) {
      inverse = a.wire.inverse_pivot(a.wire.diagonal(a.g(i, k), k + 1 == a.m), inverse);
      pivots.word[at + i * a.m + k] = inverse;
    }
  } else {
    const int64_t k = line - out.first;
    for (int64_t i = 0; i < a.n; ++i) {
      inverse = a.wire.inverse_pivot(a.wire.diagonal(a.g(i, k), i == 0), inverse);
      pivots.bit[at + i * a.m + k] = inverse;
    }
  }
}

// ---- one row of tiles of a few samples ----

struct Where {  // a tile in a round, the samples
  Range in, out;
  int64_t b0, block, segment;
  int round;
  PL_DEVICE float beta() const { return float(1 << round); }
};

struct SampleStates {  // in shared memory
  Where at;
  InputKeys inputs[kMostLanes];
  OutputKeys outputs[kMostLanes];
  double step[kMostLanes], turn[kMostLanes];
  float alpha[kMostLanes], norm[2][kMostLanes];
  int active[kMostLanes], saturated[kMostLanes];
};

// Where a block works, in shared memory: lines in the order of the matrix, lanes side by side.
struct Room {
  NodalWork work;
  NodalArray array;
  double* out;  // [m][lanes] currents of one pass
  float *q[2], *sums[2], *variance[2], *converted;
  PL_DEVICE void divide(const NodalPlan& plan, unsigned char* base, SampleStates& lanes) {
    const int64_t n = plan.inputs * plan.lanes, m = plan.outputs * plan.lanes;
    const int64_t size = plan.inputs * m;
    auto* doubles = reinterpret_cast<double*>(base);
    work = {doubles,    doubles + size, doubles + 2 * size, doubles + 3 * size, doubles + 4 * size,
            lanes.step, lanes.turn,     plan.lanes,         plan.shift};
    out = work.parts + (n > m ? n : m);
    auto* floats = reinterpret_cast<float*>(out + m);
    for (int pass = 0; pass < 2; ++pass) {
      q[pass] = floats + pass * (n + 2 * m);
      sums[pass] = q[pass] + n;
      variance[pass] = sums[pass] + m;
    }
    converted = floats + 2 * (n + 2 * m);
  }
};
size_t room_bytes(const NodalPlan& plan) {
  const int64_t n = plan.inputs, m = plan.outputs;
  const int64_t doubles = 4 * n * m + (n > m ? n : m) + m, floats = 2 * (n + 2 * m) + m;
  return size_t(plan.lanes) * (size_t(doubles) * sizeof(double) + size_t(floats) * sizeof(float));
}

// q of every lane, 0 of those that are done, and |q|^2.
template <int PASSES>
PL_DEVICE void load_inputs(const ReadJob& j, Room& room, SampleStates& lanes) {
  const Where& at = lanes.at;
  const NodalWork k = room.work;
  const int64_t n = at.in.last - at.in.first;
  if (int(threadIdx.x) < k.lanes && lanes.active[threadIdx.x]) {
    const int64_t b = at.b0 + threadIdx.x;
    lanes.inputs[threadIdx.x] = keys_of_inputs<PASSES>(j, b, at.block, at.round);
    lanes.outputs[threadIdx.x] = keys_of_outputs(j, b, at.segment, at.round);
  }
  __syncthreads();
  for_lines(k, n, [&](int64_t i, int lane, int64_t t) {
    float q[2] = {0.0f, 0.0f};
    if (lanes.active[lane])
      line_inputs<PASSES>(j, at.b0 + lane, at.in.first + i, lanes.alpha[lane] * at.beta(),
                          lanes.inputs[lane], q);
#pragma unroll
    for (int pass = 0; pass < PASSES; ++pass) room.q[pass][t] = q[pass];
  });
  __syncthreads();
  if (!wants_norm(j)) return;
  const int lane = int(threadIdx.x / 32), part = int(threadIdx.x % 32);
  if (lane >= k.lanes) return;
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
    float norm = 0.0f;
    if (part < 16)
      for (int64_t i = part; i < n; i += 16) {
        const float q = room.q[pass][i * k.lanes + lane];
        norm = fma(q, q, norm);
      }
    norm = add_halves(norm);
    if (part == 0) lanes.norm[pass][lane] = norm;
  }
}

// Currents of the tile, pcm's variances beside them.
template <int PASSES>
PL_DEVICE void solve_tile(const ReadJob& j, const Pivots& pivots, const Where& at, Room& room) {
  const ReadArgs& a = j.args;
  const NodalWork k = room.work;
  const int64_t n = at.in.last - at.in.first, m = at.out.last - at.out.first;
#pragma unroll 1
  for (int pass = 0; pass < PASSES; ++pass) {
    const float* q = room.q[pass];
    double* const out = room.out;
    for_lines(k, m, [&](int64_t, int, int64_t t) { out[t] = 0.0; });
#pragma unroll 1
    for (int array = 0; array < 2; ++array) {
      if (threadIdx.x == 0) room.array = array_of(j, pivots, at.in, at.out, array);
      __syncthreads();
      solve_nodes(room.array, room.work, j.chain.tolerance, [&](int64_t i, int lane) {
        return q[(a.transposed ? n - 1 - i : i) * k.lanes + lane];
      });
      for_lines(k, m, [&](int64_t, int, int64_t o) {
        out[o] += signed_by(array, room.array.wire.current(k.x[(n - 1) * m * k.lanes + o]));
      });
      __syncthreads();  // before the next solution
    }
    for_lines(k, m, [&](int64_t o, int lane, int64_t t) {
      const int64_t line = a.transposed ? m - 1 - o : o;
      room.sums[pass][t] = float(out[line * k.lanes + lane]);
      if (!j.chain.pcm) return;
      float variance = 0.0f;  // inputs in order, as the CPU's product
      for (int64_t i = 0; i < n; ++i) {
        const int64_t row = a.transposed ? at.in.first + i : at.out.first + o;
        const int64_t col = a.transposed ? at.out.first + o : at.in.first + i;
        const float v = q[i * k.lanes + lane];
        variance = fma(v * v, absolute(a.w[row * a.cols + col]), variance);
      }
      room.variance[pass][t] = variance;
    });
    __syncthreads();
  }
}

// The outputs through their ADCs; those of lanes that need no further round go into y.
template <int PASSES>
PL_DEVICE void store_outputs(const ReadJob& j, Room& room, SampleStates& lanes) {
  const Where& at = lanes.at;
  const NodalWork k = room.work;
  const int64_t m = at.out.last - at.out.first;
  for_lines(k, m, [&](int64_t o, int lane, int64_t t) {
    if (!lanes.active[lane]) return;
    const OutputLine line = output_line(j.args, j.chain, at.segment, at.out.first + o);
    float sums[PASSES] = {}, variances[PASSES] = {}, level = 0.0f;
#pragma unroll
    for (int pass = 0; pass < PASSES; ++pass) {
      sums[pass] = room.sums[pass][t];
      if (j.chain.pcm) variances[pass] = room.variance[pass][t];
      if (wants_norm(j)) variances[pass] = lanes.norm[pass][lane];
    }
    room.converted[t] = convert_output<PASSES>(j, Line<float>{line.noise, line.bend},
                                               uint32_t(at.out.first + o) * kColumnStride, sums,
                                               variances, lanes.outputs[lane], level);
    if (saturates(j, level) && at.round < j.args.max_rounds)
      lanes.saturated[lane] = 1;  // whoever comes
  });
  __syncthreads();
  for_lines(k, m, [&](int64_t o, int lane, int64_t t) {
    if (!lanes.active[lane] || lanes.saturated[lane]) return;
    const float scale = (lanes.alpha[lane] * at.beta()) * j.args.out_scale;
    float& y = j.args.y[(at.b0 + lane) * j.outputs + at.out.first + o];
    y = accumulate(y, room.converted[t], scale, at.segment == 0);
  });
  __syncthreads();
  if (int(threadIdx.x) < k.lanes) {
    lanes.active[threadIdx.x] = lanes.saturated[threadIdx.x];
    lanes.saturated[threadIdx.x] = 0;
  }
}

template <int PASSES>
PL_DEVICE void read_row(const ReadJob& j, const Pivots& pivots, int64_t block, int64_t b0,
                        Room& room, SampleStates& lanes) {
  Where& at = lanes.at;
  __syncthreads();
  const bool leads = int(threadIdx.x) < room.work.lanes;
  if (leads) {
    lanes.alpha[threadIdx.x] = b0 + threadIdx.x < j.args.batch ? j.alpha[b0 + threadIdx.x] : 0.0f;
    lanes.saturated[threadIdx.x] = 0;
  }
  if (threadIdx.x == 0) at = {{}, range_of(block, j.args.tile_out, j.outputs), b0, block, 0, 0};
  __syncthreads();
  for_lines(room.work, at.out.last - at.out.first, [&](int64_t o, int lane, int64_t) {
    if (!(lanes.alpha[lane] > 0.0f) && at.b0 + lane < j.args.batch)  // NaN stays NaN
      j.args.y[(at.b0 + lane) * j.outputs + at.out.first + o] = lanes.alpha[lane] * 0.0f;
  });
  for (int64_t segment = 0; segment < j.segments; ++segment) {
    if (leads) lanes.active[threadIdx.x] = lanes.alpha[threadIdx.x] > 0.0f;
    for (int round = 0;; ++round) {
      if (!__syncthreads_or(leads && lanes.active[threadIdx.x])) break;
      if (threadIdx.x == 0) {
        at.in = range_of(segment, j.args.tile_in, j.inputs);
        at.segment = segment;
        at.round = round;
      }
      __syncthreads();
      load_inputs<PASSES>(j, room, lanes);
      solve_tile<PASSES>(j, pivots, at, room);
      store_outputs<PASSES>(j, room, lanes);
    }
  }
}

template <int PASSES>
__global__ void __launch_bounds__(kNodalThreads, 1)
    nodal_kernel(const ReadJob j, const NodalPlan plan, const Pivots pivots,
                 unsigned char* memory) {
  PL_SHARED(SampleStates, lanes, 1);
  PL_SHARED(Room, room, 1);
  if (threadIdx.x == 0)
    room->divide(plan, memory + int64_t(blockIdx.x) * int64_t(plan.slot_bytes), *lanes);
  for (int64_t n = blockIdx.x; n < j.blocks * plan.groups; n += gridDim.x)
    read_row<PASSES>(j, pivots, n / plan.groups, n % plan.groups * plan.lanes, *room, *lanes);
}

}  // namespace

NodalPlan nodal_plan(const ReadJob& j, int64_t blocks, int64_t memory) {
  const auto smaller = [](int64_t a, int64_t b) { return a < b ? a : b; };
  NodalPlan p = {};
  p.inputs = smaller(j.args.tile_in, j.inputs);
  p.outputs = smaller(j.args.tile_out, j.outputs);
  for (p.shift = 3;; --p.shift) {
    p.lanes = 1 << p.shift;
    p.groups = ceil_div(j.args.batch, p.lanes);
    p.slot_bytes = round_up(room_bytes(p), size_t(256));
    p.slots = smaller(j.blocks * p.groups, memory / int64_t(p.slot_bytes));
    const bool fits = p.inputs * p.outputs * p.lanes < (int64_t(1) << 31);  // offsets are int
    if ((p.slots >= blocks && fits) || p.shift == 0) break;
  }
  if (p.slots < 1) p.slots = 1;
  const size_t pivots = round_up(4 * size_t(j.args.rows * j.args.cols) * sizeof(double), 256);
  p.bytes = pivots + size_t(p.slots) * p.slot_bytes;
  return p;
}

cudaError_t launch_read_nodal(const ReadJob& j, const NodalPlan& plan, void* memory,
                              cudaStream_t stream) {
  if (plan.inputs * plan.outputs * plan.lanes >> 31) return cudaErrorInvalidValue;
  const int64_t size = j.args.rows * j.args.cols;
  auto* doubles = static_cast<double*>(memory);
  const Pivots pivots = {doubles, doubles + 2 * size};
  auto* slots =
      static_cast<unsigned char*>(memory) + plan.bytes - size_t(plan.slots) * plan.slot_bytes;
  const int64_t lines = j.inputs * j.blocks + j.outputs * j.segments;
  PL_TRY(launch(pivots_kernel, dim3(unsigned(ceil_div(lines, kPivotThreads)), 2),
                dim3(kPivotThreads), 0, stream, j, pivots));
  return launch(j.passes == 2 ? nodal_kernel<2> : nodal_kernel<1>, dim3(unsigned(plan.slots)),
                dim3(kNodalThreads), 0, stream, j, plan, pivots, slots);
}

}  // namespace pulseline::cuda
