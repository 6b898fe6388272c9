#pragma once
// Wire resistance of one physical tile. Forward geometry: input line (word line) i is driven at
// output 0, output line (bit line) j is sensed at the last input; backward swaps the roles of the
// same line ends, so that its matrix is the transpose (reciprocity). Weights are differences of
// two arrays, max(w, 0) and max(-w, 0), in units of the conductance of weight 1; every segment of
// wire between two crosspoints, and from a line's end to its driver, has the resistance r.
#include <cstdint>
#include <vector>

namespace pulseline::cpu {

// out[row][col] of rows x cols: effective weights in closed form, exact to first order in r.
void approximate_wires(const float* w, int64_t rows, int64_t cols, int64_t stride, double r,
                       float* out);

// The nodal equations of one tile, factored once, then solved per sample. Float64.
class WireSolver {
 public:
  // Tile w[rows][cols]; transposed: inputs are its rows.
  WireSolver(const float* w, int64_t rows, int64_t cols, int64_t stride, bool transposed, double r,
             double tolerance);
  // y[samples][outputs] of q[samples][inputs]. Returns the largest number of CG iterations.
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
  int solve_array(const Array& a, Work& work, double sign, double* out) const;

  int64_t n_, m_;  // inputs, outputs
  bool flipped_;
  double segment_, tolerance_;  // conductance of a wire segment
  Array arrays_[2];
};

}  // namespace pulseline::cpu
