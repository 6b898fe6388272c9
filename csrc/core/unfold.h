#pragma once
// Patches of an image as rows of a matrix: what a convolution multiplies (im2col), and its adjoint.
//   row[position][channel K + k] = image[sample][channel][source of (position, k)], 0 beyond it
// Where an element comes from is a table per dimension, source[output][kernel], -1: nowhere. It
// holds stride, dilation, every kind of padding, and what a transposed convolution does.
#include <cstdint>

namespace pulseline {

constexpr int kDimensions = 3;  // images of fewer have leading ones of size 1

struct UnfoldArgs {
  float *image, *rows;  // the one that is read is not written
  int64_t channels;
  int64_t sample_stride, channel_stride, stride[kDimensions];  // of the image, in elements
  int64_t outputs[kDimensions], kernel[kDimensions];
  const int32_t* source[kDimensions];  // [outputs][kernel]
  int64_t first, last;                 // positions, counted over all samples in raster order
};

}  // namespace pulseline
