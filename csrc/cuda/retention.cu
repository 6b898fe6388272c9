// Between pulses: see retention.h. `redraw` draws an update's trains again, slice by slice, finds
// for every crosspoint the last train word whose pulses reached it, and writes that sample's noise;
// later slices write over it.
#include "cuda/cells.h"
#include "cuda/retention.h"
#include "cuda/words.h"

namespace pulseline::cuda {
namespace {

__global__ void __launch_bounds__(kCellColumns* kCellRows)
    retain_kernel(const RetentionArgs a, Keys key) {
  for_cells(a.rows, a.cols, [&](uint32_t i, uint32_t j, int64_t o) {
    if (is_stuck(a.step[o])) return;
    const RetentionPairs<uint32_t> c = {a.fade[o], a.walk[o]};
    const float xi = retention_normal(i, j, key);
    a.w[o] = a.purpose == kReset ? reset(c, a.bound[o], a.amount, xi)
                                 : age(a.w[o], c, a.bound[o], a.amount, xi);
  });
}

// status: of an update that may have been refused; nullptr: there was none.
__global__ void __launch_bounds__(kCellColumns* kCellRows)
    disturb_kernel(const WrittenCells c, const Stream draws, const int64_t* counter,
                   float deviation, const unsigned long long* status) {
  if (status && *status != kAllFinite) return;
  const Keys key = draw_keys(draws, kProgramming, counter ? uint64_t(*counter) : 0u, 0);
  for_cells(c.rows, c.cols, [&](uint32_t i, uint32_t j, int64_t o) {
    const float hidden = c.hidden[o];
    const bool still = deviation == 0.0f || is_stuck(c.step[o]);
    c.visible[o] = still ? hidden : fma(deviation, retention_normal(i, j, key), hidden);
  });
}

struct Redraws {
  Task task[kTasks];
  const float* hidden[kTasks];
  float deviation[kTasks];
};

// Number in the slice of the last train word whose pulses reached a lane's crosspoints; -1: none.
struct LastHits {
  int number[kRows][2];
  PL_DEVICE LastHits(const Task& t, int slice, const LanePlace& at, Chunk* chunks) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) number[r][0] = number[r][1] = -1;
    for_words(t, slice, at, chunks, [&](const Words& words, Keys, int64_t n) {
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int h = 0; h < 2; ++h)
          if (words.row[r] & words.column[h] & ~kSign) number[r][h] = int(n);
    });
  }
};

__global__ void __launch_bounds__(kBlockThreads, 4)
    redraw_kernel(const __grid_constant__ Redraws redraws, int slice) {
  PL_SHARED(Chunk, chunks, 2);
  const Task& t = redraws.task[blockIdx.z];
  const UpdateArgs& a = t.args;
  const LanePlace at;
  if (at.outside(a) || slice >= t.slices || refused(t)) return;
  const LastHits last(t, slice, at, chunks);
  const int64_t first = first_word(t, slice);
#pragma unroll
  for (int r = 0; r < kRows; ++r)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t row = at.row + r, column = at.column + 16 * h, o = row * a.cols + column;
      if (last.number[r][h] < 0 || row >= a.rows || column >= a.cols || is_stuck(a.step[o]))
        continue;
      const uint64_t k = call_number(t) + uint64_t(t.train_words[first + last.number[r][h]].source);
      const Keys key = draw_keys(a.stream, kWriteNoise, k, 0);
      a.w[o] =
          fma(redraws.deviation[blockIdx.z], retention_normal(uint32_t(row), uint32_t(column), key),
              redraws.hidden[blockIdx.z][o]);
    }
}

cudaError_t launch_cells(const WrittenCells& c, const Stream& draws, const int64_t* counter,
                         float deviation, const unsigned long long* status, cudaStream_t stream) {
  if (c.rows == 0 || c.cols == 0) return cudaSuccess;
  return launch(disturb_kernel, cell_grid(c.rows, c.cols), cell_block(), 0, stream, c, draws,
                counter, deviation, status);
}

}  // namespace

cudaError_t launch_retain(const RetentionArgs& a, cudaStream_t stream) {
  if (a.rows == 0 || a.cols == 0) return cudaSuccess;
  return launch(retain_kernel, cell_grid(a.rows, a.cols), cell_block(), 0, stream, a,
                draw_keys(a.stream, a.purpose, a.k, 0));
}

cudaError_t launch_disturb(const WrittenCells& cells, const Stream& draws, const int64_t* counter,
                           float deviation, cudaStream_t stream) {
  return launch_cells(cells, draws, counter, deviation, nullptr, stream);
}

cudaError_t launch_redraw(const Redraw* redraws, int count, cudaStream_t stream) {
  Redraws all = {};
  for (int i = 0; i < count; ++i) {
    all.task[i] = redraws[i].task;
    all.hidden[i] = redraws[i].hidden;
    all.deviation[i] = redraws[i].deviation;
  }
  const Call c = {all.task, count, -1, nullptr, stream};
  PL_TRY(launch_plan(c));
  if (!anything(c)) return cudaSuccess;
  if (all.task[0].args.fidelity == kExpected) {
    for (int i = 0; i < count; ++i) {
      const UpdateArgs& a = all.task[i].args;
      if (a.batch == 0) continue;
      PL_TRY(launch_cells({all.hidden[i], a.step, a.w, a.rows, a.cols}, {}, nullptr, 0.0f,
                          all.task[i].status, stream));
    }
    return cudaSuccess;
  }
  const int slices = int(most(c, [](const Task& t) { return t.slices; }));
  for (int slice = 0; slice < slices; ++slice) {
    PL_TRY(launch_trains(c, slice));
    PL_TRY(launch(redraw_kernel, block_grid(c), kBlockThreads, 0, stream, all, slice));
  }
  return cudaSuccess;
}

}  // namespace pulseline::cuda
