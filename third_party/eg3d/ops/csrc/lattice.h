#pragma once

#include <cstdint>

namespace eg3d {

// A lattice of pixels in a batch of images, in floats from `data`; `channels` of a pixel are neighbours.
struct Lattice {
  const float* data;
  int64_t sample, row, pixel;  // strides
  int batch, height, width, channels;
};

}  // namespace eg3d
