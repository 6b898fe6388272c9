// Loops over positions in blocks of one output line, so that an image's lines and the block's rows
// stay in the nearest cache whatever the strides.
#include "core/unfold.h"

#include <algorithm>
#include <cstring>

#include "cpu/cpu.h"
#include "cpu/threads.h"

namespace pulseline::cpu {
namespace {

constexpr int64_t kBlock = 8;                 // positions; rows a page apart share a set of 8 lines
constexpr int64_t kSerialElements = 1 << 16;  // below, a second thread does not pay

struct Shape {  // of one kernel
  int64_t lines, width, size;
  explicit Shape(const UnfoldArgs& a)
      : lines(a.kernel[0] * a.kernel[1]), width(a.kernel[2]), size(lines * width) {}
};

// Positions of one output line, at most kBlock.
struct Block {
  int64_t sample, o0, o1, o2, count;

  Block(const UnfoldArgs& a, int64_t position, int64_t last) {
    o2 = position % a.outputs[2];
    const int64_t line = position / a.outputs[2];
    o1 = line % a.outputs[1];
    o0 = line / a.outputs[1] % a.outputs[0];
    sample = line / a.outputs[1] / a.outputs[0];
    count = std::min({kBlock, a.outputs[2] - o2, last - position});
  }
  const int32_t* sources(const UnfoldArgs& a, int64_t p) const {
    return a.source[2] + (o2 + p) * a.kernel[2];
  }
  // Where line n of the kernel begins in a channel; -1: nowhere.
  int64_t line(const UnfoldArgs& a, int64_t n) const {
    const int32_t s0 = a.source[0][o0 * a.kernel[0] + n / a.kernel[1]];
    const int32_t s1 = a.source[1][o1 * a.kernel[1] + n % a.kernel[1]];
    return s0 < 0 || s1 < 0 ? -1 : s0 * a.stride[0] + s1 * a.stride[1];
  }
  // Whether each position's elements of a line lie side by side.
  bool side_by_side(const UnfoldArgs& a) const {
    if (a.stride[2] != 1 && a.kernel[2] > 1) return false;
    for (int64_t p = 0; p < count; ++p) {
      const int32_t* s = sources(a, p);
      for (int64_t k = 0; k < a.kernel[2]; ++k)
        if (s[0] < 0 || s[k] != s[0] + k) return false;
    }
    return true;
  }
};

// WIDTH: of the kernel, 0: any.
template <int WIDTH>
void copy_lines(const UnfoldArgs& a, const Block& b, const Shape& shape, const float* image,
                float* rows) {
  const int64_t width = WIDTH ? WIDTH : shape.width, columns = a.channels * shape.size;
  int64_t at[kBlock];
  for (int64_t p = 0; p < b.count; ++p) at[p] = b.sources(a, p)[0] * a.stride[2];
  for (int64_t n = 0; n < shape.lines; ++n) {
    const int64_t line = b.line(a, n);
    float* out = rows + n * width;
    const float* in = image + std::max(line, int64_t(0));
    for (int64_t c = 0; c < a.channels; ++c, in += a.channel_stride, out += shape.size)
      for (int64_t p = 0; p < b.count; ++p) {
        if (line < 0)
          std::memset(out + p * columns, 0, size_t(width) * sizeof(float));
        else
          std::memcpy(out + p * columns, in + at[p], size_t(width) * sizeof(float));
      }
  }
}

void copy_elements(const UnfoldArgs& a, const Block& b, const Shape& shape, const float* image,
                   float* rows) {
  const int64_t columns = a.channels * shape.size;
  for (int64_t n = 0; n < shape.lines; ++n) {
    const int64_t line = b.line(a, n);
    float* out = rows + n * shape.width;
    const float* in = image + std::max(line, int64_t(0));
    for (int64_t c = 0; c < a.channels; ++c, in += a.channel_stride, out += shape.size)
      for (int64_t p = 0; p < b.count; ++p) {
        const int32_t* s = b.sources(a, p);
        for (int64_t k = 0; k < shape.width; ++k)
          out[p * columns + k] = line < 0 || s[k] < 0 ? 0.0f : in[s[k] * a.stride[2]];
      }
  }
}

void unfold_block(const UnfoldArgs& a, const Shape& shape, const Block& b, float* rows) {
  const float* image = a.image + b.sample * a.sample_stride;
  if (!b.side_by_side(a)) return copy_elements(a, b, shape, image, rows);
  if (shape.width == 1) return copy_lines<1>(a, b, shape, image, rows);
  if (shape.width == 3) return copy_lines<3>(a, b, shape, image, rows);
  copy_lines<0>(a, b, shape, image, rows);
}

// Elements of a block into channels c0..c1: STORE: each comes once and is stored, else added.
template <bool STORE>
void fold_block(const UnfoldArgs& a, const Shape& shape, const Block& b, const float* rows,
                int64_t c0, int64_t c1) {
  const int64_t columns = a.channels * shape.size;
  float* const image = a.image + b.sample * a.sample_stride + c0 * a.channel_stride;
  const bool dense = b.side_by_side(a) && shape.width == 3;
  for (int64_t n = 0; n < shape.lines; ++n) {
    const int64_t line = b.line(a, n);
    if (line < 0) continue;
    float* to = image + line;
    const float* from = rows + c0 * shape.size + n * shape.width;
    for (int64_t c = c0; c < c1; ++c, to += a.channel_stride, from += shape.size)
      for (int64_t p = 0; p < b.count; ++p) {
        const int32_t* s = b.sources(a, p);
        const float* values = from + p * columns;
        if (dense) {
          float* x = to + s[0];
          x[0] += values[0], x[1] += values[1], x[2] += values[2];
          continue;
        }
        for (int64_t k = 0; k < shape.width; ++k) {
          if (s[k] < 0) continue;
          float& x = to[s[k] * a.stride[2]];
          x = STORE ? values[k] : x + values[k];
        }
      }
  }
}

// Whether no element of a kernel's outer dimensions comes twice, as reflected ones do: positions
// of a block may then be taken one line after the other.
bool distinct(const UnfoldArgs& a) {
  for (int d = 0; d < 2; ++d)
    for (int64_t o = 0; o < a.outputs[d]; ++o)
      for (int64_t k = 1; k < a.kernel[d]; ++k)
        for (int64_t j = 0; j < k; ++j) {
          const int32_t* s = a.source[d] + o * a.kernel[d];
          if (s[k] >= 0 && s[k] == s[j]) return false;
        }
  return true;
}

}  // namespace

void unfold(const UnfoldArgs& a, int threads) {
  const Shape shape(a);
  const int64_t columns = a.channels * shape.size, count = a.last - a.first;
  if (columns * count < kSerialElements) threads = 1;
  const int64_t chunk = (count + threads - 1) / std::max(threads, 1);
  parallel_chunks(count, std::max(chunk, kBlock), threads, [&](int64_t p0, int64_t p1) {
    for (int64_t p = a.first + p0; p < a.first + p1;) {
      const Block block(a, p, a.first + p1);
      unfold_block(a, shape, block, a.rows + (p - a.first) * columns);
      p += block.count;
    }
  });
}

// Every element of the image adds what falls on it in the order of positions, then of the kernel,
// so that calls may be cut anywhere; threads share channels.
void fold(const UnfoldArgs& a, bool store, int threads) {
  const Shape shape(a);
  const int64_t columns = a.channels * shape.size, count = a.last - a.first;
  if (columns * count < kSerialElements) threads = 1;
  const bool blocks = distinct(a);
  const int64_t chunk = (a.channels + threads - 1) / std::max(threads, 1);
  parallel_chunks(a.channels, std::max(chunk, int64_t(1)), threads, [&](int64_t c0, int64_t c1) {
    for (int64_t p = a.first; p < a.last;) {
      Block block(a, p, a.last);
      if (!blocks) block.count = 1;
      const float* rows = a.rows + (p - a.first) * columns;
      store ? fold_block<true>(a, shape, block, rows, c0, c1)
            : fold_block<false>(a, shape, block, rows, c0, c1);
      p += block.count;
    }
  });
}

}  // namespace pulseline::cpu
