#pragma once
// Resistance of the wires of one physical tile: the recurrences along its lines, the closed form of
// a crosspoint, the numbers of a conjugate gradient. All in double; a multiplication is never
// contracted with what follows, so that every backend has the same bits.
//
// Forward geometry: input line (word line) i is driven at output 0, output line (bit line) j is
// sensed at the last input; backward swaps the roles of the same line ends, so that its matrix is
// the transpose (reciprocity). Weights are differences of two arrays, max(w, 0) and max(-w, 0), in
// units of the conductance of weight 1; every segment of wire between two crosspoints, and from a
// line's end to its driver, has the resistance r in the inverse of that unit.
//
// Closed form, per array G (rows i: n inputs, columns j: m outputs), exact to first order in r:
//   W_ij = G_ij / (u_n / u_ij + v_m / v_ij - 1)
// u_ij is the voltage along bit line j, from the open end to the sense end, whose crosspoints leak
// to grounded word lines: u_0 = 1, u_{i+1} = u_i + r sum_{k<=i} G_kj u_kj; u_ij / u_n is the part
// of a current injected at i that arrives (an alpha-beta form). v likewise along word line i, from
// its open end to the driver. The two act like resistances in series with the crosspoint, hence the
// sum of the inverses and not the product of the parts: .3 % instead of 2 % at n^2 r <G> = .5.
//
// Nodal solve: word-line voltages v, bit-line voltages u at every crosspoint. With the tridiagonal
// systems A v = G u + drive of the word lines and B u = G v of the bit lines, eliminating v gives
//   (B - G A^-1 G) u = G A^-1 drive,
// symmetric positive definite; conjugate gradients preconditioned by B^-1 converge in a few steps.
// Lines are eliminated from the first node to the last: word lines from the driver to the open end,
// bit lines from the open end to the sense end.
#include "core/macros.h"

namespace pulseline {

// Of a crosspoint in the array of positive (0) or of negative weights (1), and what that adds to.
PL_HD double conductance(float w, int array) {
  const double g = array == 0 ? double(w) : -double(w);
  return g <= 0 ? 0.0 : g;  // NaN stays NaN
}
PL_HD double signed_by(int array, double value) { return array == 0 ? value : -value; }

// ---- closed form ----

// Past one crosspoint along a line, from its open end: 1 and 0 there.
PL_HD void pass_crosspoint(double g, double r, double& voltage, double& current) {
  current += g * voltage;
  voltage += r * current;
}
// Weight of a crosspoint from the voltages of its lines, there and at the sense or driver end.
PL_HD double behind_wires(double g, double bit, double bit_end, double word, double word_end) {
  return g / ((bit_end / bit + word_end / word) - 1.0);
}

// ---- nodal solve: the systems A and B of a line ----

struct Wire {
  double segment;  // its conductance, 1 / r
  // A node has a segment on both sides, at the open end on one.
  PL_HD double diagonal(double g, bool open_end) const {
    return g + segment + (open_end ? 0.0 : segment);
  }
  // Inverse pivot; `before`: of the node before, 0 for the first one.
  PL_HD double inverse_pivot(double diagonal, double before) const {
    return 1.0 / (diagonal - segment * ratio(before));
  }
  // Share of an eliminated node's value that its successor takes over.
  PL_HD double ratio(double inverse_pivot) const { return segment * inverse_pivot; }
  // What a voltage drives into the neighbouring node, or out of the sense end.
  PL_HD double current(double voltage) const { return segment * voltage; }
  // ((B - G A^-1 G) u) of one node; `beside`: sum of u of the bit line's nodes on both sides,
  // `solved`: A^-1 G u.
  PL_HD double reduced(double diagonal, double u, double beside, double g, double solved) const {
    return diagonal * u - segment * beside - g * solved;
  }
};
// Forward and back: `from_next`: the current of the node after, 0 for the last one.
PL_HD double eliminate(double value, double ratio, double before) { return value + ratio * before; }
PL_HD double substitute(double value, double from_next, double inverse_pivot) {
  return (value + from_next) * inverse_pivot;
}

// ---- conjugate gradients of one sample: x += step p, r -= step s, p = z + turn p ----
// s = (B - G A^-1 G) p, z = B^-1 r. A sample that has converged keeps its x: both are 0 from then
// on, whatever its neighbours do.

constexpr int kMostIterations = 1000;

struct Descent {
  double limit;   // of r z where the relative error of the energy is the square of the tolerance
  double square;  // r z
  static PL_HD double limit_of(double energy, double tolerance) {
    return energy * (tolerance * tolerance);
  }
  PL_HD bool running() const { return square > limit; }
  PL_HD double step(double curvature) const { return running() ? square / curvature : 0.0; }  // p s
  PL_HD double turn(double next) {  // r z of the new r
    if (!running()) return 0.0;
    const double before = square;
    square = next;
    return next / before;
  }
};

}  // namespace pulseline
