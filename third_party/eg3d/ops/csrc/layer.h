// 3x3 convolutions of synthesis layers and what surrounds them, as layer.cpp hands them to the kernels. Images have
// channels last, a multiple of LANES; results are written to where the Lattice of `y` or `z` lies.
#pragma once

#include "epilogue.h"
#include "lattice.h"

namespace eg3d {

// Filters (outputs, inputs, 3, 3) with any strides; `flip` turns them around.
struct Filters {
  const float* data;
  int64_t output, input, row, column;  // strides
  int outputs, inputs;
  bool flip;

  float at(int64_t n, int64_t k, int y, int x) const {
    return data[n * output + k * input + (flip ? 2 - y : y) * row + (flip ? 2 - x : x) * column];
  }
};

// Scale and shift of the samples, per sample and channel, or per channel if `scale_sample` is 0; null for none.
struct Affine {
  const float* scale;
  const float* shift;
  int64_t scale_sample;  // stride
};

// The last step of a gradient: y = factor v, and sums (batch, channels) of v like over the pixels; like may be null.
struct Scaling {
  const float *factor, *like;
  float* sums;
};

void conv3x3_cpu(const Lattice& x, const Filters& w, const Affine& affine, const Epilogue& epilogue, const Lattice& y,
                 float* to);
void conv3x3_gradient_cpu(const Lattice& g, const Filters& w, const Affine& affine, const Scaling& scaling,
                          const Lattice& y, float* to);
void conv3x3_up_cpu(const Lattice& x, const Filters& w, const Affine& affine, const Lattice& z, float* to);
// `padded`: z lies behind a row and a column of zeros.
void conv3x3_down_cpu(const Lattice& z, const Filters& w, bool padded, const Affine& affine, const Scaling& scaling,
                      const Lattice& y, float* to);

// Gradient (O, I, 3, 3) of the weight of conv3x3: of sum(dy factor conv(weight, scale x)).
void conv3x3_weights_cpu(const Lattice& x, const Lattice& dy, const float* scale, const float* factor, float* to);

constexpr int FILTER_TAPS = 4;

// y[o] = sum_k taps[k] x[o - pad + k] on each axis, and the epilogue behind it.
void filter_image_cpu(const Lattice& x, const float* taps, int pad, const Epilogue& epilogue, const Lattice& y,
                      float* to);

// Gradient of the epilogue in u = factor x + noise + bias, from y: du, and its sums (batch, channels) over the pixels
// of du and of du factor x.
void epilogue_gradient_cpu(const Lattice& dy, const Lattice& y, const Epilogue& epilogue, float* du, float* sums,
                           float* products);

}  // namespace eg3d
