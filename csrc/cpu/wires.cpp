// Wires, core/wires.h: closed form and nodal solve. Samples are lanes: each has its own step sizes
// and stops by itself, so that its bits do not depend on its neighbours.
#include "cpu/wires.h"

#include <cstddef>

namespace pulseline::cpu {

void approximate_wires(const float* w, int64_t rows, int64_t cols, int64_t stride, double r,
                       float* out) {
  // Inputs are the columns of the weight matrix, outputs its rows.
  const size_t width = size_t(cols), size = size_t(rows) * width;
  std::vector<double> total(size, 0.0), word(size), bit(width);
  for (int array = 0; array < 2; ++array) {
    std::vector<double> word_end(width, 1.0), current(width, 0.0);
    for (int64_t j = rows - 1; j >= 0; --j)
      for (size_t i = 0; i < width; ++i) {
        word[size_t(j) * width + i] = word_end[i];
        pass_crosspoint(conductance(w[j * stride + int64_t(i)], array), r, word_end[i], current[i]);
      }
    for (int64_t j = 0; j < rows; ++j) {
      double bit_end = 1.0, through = 0.0;
      for (size_t i = 0; i < width; ++i) {
        bit[i] = bit_end;
        pass_crosspoint(conductance(w[j * stride + int64_t(i)], array), r, bit_end, through);
      }
      for (size_t i = 0; i < width; ++i) {
        const size_t k = size_t(j) * width + i;
        const double g = conductance(w[j * stride + int64_t(i)], array);
        total[k] += signed_by(array, behind_wires(g, bit[i], bit_end, word[k], word_end[i]));
      }
    }
  }
  for (int64_t j = 0; j < rows; ++j)
    for (int64_t i = 0; i < cols; ++i) out[j * stride + i] = float(total[size_t(j * cols + i)]);
}

struct WireSolver::Work {
  Work(size_t n, size_t bits) : drive(n), x(n), r(n), z(n), p(n), s(n), parts(bits) {}
  std::vector<double> drive, x, r, z, p, s, parts;
};

WireSolver::WireSolver(const float* w, int64_t rows, int64_t cols, int64_t stride, bool transposed,
                       double r, double tolerance)
    : n_(transposed ? rows : cols),
      m_(transposed ? cols : rows),
      flipped_(transposed),
      wire_{1.0 / r},
      tolerance_(tolerance) {
  for (int k = 0; k < 2; ++k) {
    Array& a = arrays_[k];
    a.g.resize(size_t(n_ * m_));
    for (int64_t i = 0; i < n_; ++i)
      for (int64_t j = 0; j < m_; ++j) {
        // Backward: the line ends of the forward read, seen from the other side.
        const float v = flipped_ ? w[(n_ - 1 - i) * stride + (m_ - 1 - j)] : w[j * stride + i];
        const double g = conductance(v, k);
        a.g[size_t(i * m_ + j)] = g;
        if (g != 0) a.empty = false;  // NaN too
      }
    if (!a.empty) factor(a);
  }
}

void WireSolver::factor(Array& a) const {
  const size_t size = size_t(n_ * m_);
  for (auto* v : {&a.word_ratio, &a.word_inverse, &a.bit_diagonal, &a.bit_ratio, &a.bit_inverse})
    v->assign(size, 0.0);
  for (int64_t i = 0; i < n_; ++i)
    for (int64_t j = 0; j < m_; ++j) {
      const size_t k = size_t(i * m_ + j);
      const double word_before = j > 0 ? a.word_inverse[k - 1] : 0.0;
      const double bit_before = i > 0 ? a.bit_inverse[k - size_t(m_)] : 0.0;
      a.word_ratio[k] = wire_.ratio(word_before);
      a.word_inverse[k] = wire_.inverse_pivot(wire_.diagonal(a.g[k], j + 1 == m_), word_before);
      a.bit_diagonal[k] = wire_.diagonal(a.g[k], i == 0);
      a.bit_ratio[k] = wire_.ratio(bit_before);
      a.bit_inverse[k] = wire_.inverse_pivot(a.bit_diagonal[k], bit_before);
    }
}

// v <- A^-1 v, along the word lines.
void WireSolver::word_solve(const Array& a, double* v) const {
  for (int64_t i = 0; i < n_; ++i) {
    const double *ratio = &a.word_ratio[size_t(i * m_)], *inverse = &a.word_inverse[size_t(i * m_)];
    double* x = v + i * m_ * kLanes;
    for (int64_t j = 1; j < m_; ++j)
      for (int l = 0; l < kLanes; ++l) {
        double& node = x[j * kLanes + l];
        node = eliminate(node, ratio[j], x[(j - 1) * kLanes + l]);
      }
    double from_next[kLanes] = {};
    for (int64_t j = m_ - 1; j >= 0; --j)
      for (int l = 0; l < kLanes; ++l) {
        double& node = x[j * kLanes + l];
        node = substitute(node, from_next[l], inverse[j]);
        from_next[l] = wire_.current(node);
      }
  }
}

// v = B^-1 from, along the bit lines.
void WireSolver::bit_solve(const Array& a, const double* from, double* v) const {
  const int64_t width = m_ * kLanes;
  for (int64_t k = 0; k < width; ++k) v[k] = from[k];
  for (int64_t i = 1; i < n_; ++i)
    for (int64_t j = 0; j < m_; ++j)
      for (int l = 0; l < kLanes; ++l) {
        const int64_t k = i * width + j * kLanes + l;
        v[k] = eliminate(from[k], a.bit_ratio[size_t(i * m_ + j)], v[k - width]);
      }
  for (int64_t i = n_ - 1; i >= 0; --i)
    for (int64_t j = 0; j < m_; ++j)
      for (int l = 0; l < kLanes; ++l) {
        const int64_t k = i * width + j * kLanes + l;
        const double from_next = i + 1 < n_ ? wire_.current(v[k + width]) : 0.0;
        v[k] = substitute(v[k], from_next, a.bit_inverse[size_t(i * m_ + j)]);
      }
}

// out = (B - G A^-1 G) p
void WireSolver::schur(const Array& a, const double* p, double* out) const {
  const int64_t size = n_ * m_, width = m_ * kLanes;
  for (int64_t k = 0; k < size; ++k)
    for (int l = 0; l < kLanes; ++l) out[k * kLanes + l] = a.g[size_t(k)] * p[k * kLanes + l];
  word_solve(a, out);
  for (int64_t i = 0; i < n_; ++i)
    for (int64_t j = 0; j < m_; ++j)
      for (int l = 0; l < kLanes; ++l) {
        const int64_t k = i * width + j * kLanes + l;
        const double above = i > 0 ? p[k - width] : 0.0, below = i + 1 < n_ ? p[k + width] : 0.0;
        const size_t c = size_t(i * m_ + j);
        out[k] = wire_.reduced(a.bit_diagonal[c], p[k], above + below, a.g[c], out[k]);
      }
}

// Sums of u v, in the orders of the passes that end with u and v (the GPU adds up as it goes):
// along every word line from its open end, then over the word lines;
void WireSolver::dot_words(const double* u, const double* v, double* result) const {
  for (int l = 0; l < kLanes; ++l) result[l] = 0.0;
  for (int64_t i = 0; i < n_; ++i) {
    double part[kLanes] = {};
    for (int64_t k = (i + 1) * m_ - 1; k >= i * m_; --k)
      for (int l = 0; l < kLanes; ++l) part[l] += u[k * kLanes + l] * v[k * kLanes + l];
    for (int l = 0; l < kLanes; ++l) result[l] += part[l];
  }
}

// along every bit line from its sense end, then over the bit lines. parts: one row.
void WireSolver::dot_bits(const double* u, const double* v, double* parts, double* result) const {
  const int64_t width = m_ * kLanes;
  for (int64_t k = 0; k < width; ++k) parts[k] = 0.0;
  for (int64_t i = n_ - 1; i >= 0; --i)
    for (int64_t k = 0; k < width; ++k) parts[k] += u[i * width + k] * v[i * width + k];
  for (int l = 0; l < kLanes; ++l) result[l] = 0.0;
  for (int64_t j = 0; j < m_; ++j)
    for (int l = 0; l < kLanes; ++l) result[l] += parts[j * kLanes + l];
}

int WireSolver::solve_array(const Array& a, Work& work, int array, double* out) const {
  const int64_t size = n_ * m_;
  double *x = work.x.data(), *r = work.r.data(), *z = work.z.data(), *p = work.p.data(),
         *s = work.s.data(), *parts = work.parts.data();
  for (int64_t k = 0; k < size * kLanes; ++k) r[k] = work.drive[size_t(k)];
  word_solve(a, r);
  for (int64_t k = 0; k < size; ++k)
    for (int l = 0; l < kLanes; ++l) r[k * kLanes + l] *= a.g[size_t(k)];
  bit_solve(a, r, x);
  double sums[kLanes], step[kLanes], turn[kLanes];
  Descent descent[kLanes];
  dot_bits(r, x, parts, sums);
  for (int l = 0; l < kLanes; ++l) descent[l].limit = Descent::limit_of(sums[l], tolerance_);
  schur(a, x, s);
  for (int64_t k = 0; k < size * kLanes; ++k) r[k] -= s[k];
  bit_solve(a, r, z);
  dot_bits(r, z, parts, sums);
  for (int l = 0; l < kLanes; ++l) descent[l].square = sums[l];
  for (int64_t k = 0; k < size * kLanes; ++k) p[k] = z[k];
  int iterations = 0;
  for (; iterations < kMostIterations; ++iterations) {
    bool running = false;
    for (const Descent& d : descent) running |= d.running();
    if (!running) break;
    schur(a, p, s);
    dot_words(p, s, sums);
    for (int l = 0; l < kLanes; ++l) step[l] = descent[l].step(sums[l]);
    for (int64_t k = 0; k < size; ++k)
      for (int l = 0; l < kLanes; ++l) {
        x[k * kLanes + l] += step[l] * p[k * kLanes + l];
        r[k * kLanes + l] -= step[l] * s[k * kLanes + l];
      }
    bit_solve(a, r, z);
    dot_bits(r, z, parts, sums);
    for (int l = 0; l < kLanes; ++l) turn[l] = descent[l].turn(sums[l]);
    for (int64_t k = 0; k < size; ++k)
      for (int l = 0; l < kLanes; ++l)
        p[k * kLanes + l] = z[k * kLanes + l] + turn[l] * p[k * kLanes + l];
  }
  const double* last = x + (n_ - 1) * m_ * kLanes;
  for (int64_t k = 0; k < m_ * kLanes; ++k) out[k] += signed_by(array, wire_.current(last[k]));
  for (const Descent& d : descent)
    if (d.running()) return kMostIterations + 1;
  return iterations;
}

int WireSolver::solve(const float* q, int64_t q_stride, int64_t samples, float* y,
                      int64_t y_stride) const {
  Work work(size_t(n_ * m_ * kLanes), size_t(m_ * kLanes));
  std::vector<double> out(size_t(m_ * kLanes));
  int most = 0;
  for (int64_t b = 0; b < samples; b += kLanes) {
    for (double& v : work.drive) v = 0.0;
    for (double& v : out) v = 0.0;
    for (int l = 0; l < kLanes && b + l < samples; ++l)
      for (int64_t i = 0; i < n_; ++i)
        work.drive[size_t(i * m_ * kLanes + l)] =
            wire_.current(double(q[(b + l) * q_stride + (flipped_ ? n_ - 1 - i : i)]));
    for (int k = 0; k < 2; ++k) {
      if (arrays_[k].empty) continue;
      const int used = solve_array(arrays_[k], work, k, out.data());
      most = used > most ? used : most;
    }
    for (int l = 0; l < kLanes && b + l < samples; ++l)
      for (int64_t j = 0; j < m_; ++j)
        y[(b + l) * y_stride + (flipped_ ? m_ - 1 - j : j)] = float(out[size_t(j * kLanes + l)]);
  }
  return most;
}

}  // namespace pulseline::cpu
