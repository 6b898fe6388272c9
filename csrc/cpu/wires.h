#pragma once
// Physical tiles with resistive wires, core/wires.h, line by line.
#include <cstdint>
#include <vector>

#include "core/wires.h"

namespace pulseline::cpu {

// out[row][col] of rows x cols: effective weights in closed form.
void approximate_wires(const float* w, int64_t rows, int64_t cols, int64_t stride, double r,
                       float* out);

// The nodal equations of one tile, factored once, then solved per sample.
class WireSolver {
 public:
  // Tile w[rows][cols]; transposed: inputs are its rows.
  WireSolver(const float* w, int64_t rows, int64_t cols, int64_t stride, bool transposed, double r,
             double tolerance);
  // y[samples][outputs] of q[samples][inputs]. Returns the largest number of CG iterations,
  // more than kMostIterations where they did not converge.
  int solve(const float* q, int64_t q_stride, int64_t samples, float* y, int64_t y_stride) const;

 private:
  static constexpr int kLanes = 4;  // samples solved side by side
  struct Array {                    // [inputs][outputs]: conductances, factors of both line systems
    std::vector<double> g, word_ratio, word_inverse, bit_diagonal, bit_ratio, bit_inverse;
    bool empty = true;
  };
  struct Work;
  void factor(Array& a) const;
  void word_solve(const Array& a, double* v) const;
  void bit_solve(const Array& a, const double* from, double* v) const;
  void schur(const Array& a, const double* p, double* out) const;
  void dot_words(const double* u, const double* v, double* result) const;
  void dot_bits(const double* u, const double* v, double* parts, double* result) const;
  int solve_array(const Array& a, Work& work, int array, double* out) const;

  int64_t n_, m_;  // inputs, outputs
  bool flipped_;
  Wire wire_;
  double tolerance_;
  Array arrays_[2];
};

}  // namespace pulseline::cpu
