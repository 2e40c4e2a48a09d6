// FIR resampling, one element at a time: shared by CPU and GPU.
#pragma once

#include "bias_act.h"

namespace eg3d {

// Along each axis, y[o] = gain * sum_k g[k] x[(o * down - pad + k) / up], over the k that divide and stay inside of x;
// g is f where `flip`, else f turned around.
struct Upfirdn2d {
  const void* x;
  const float* f;  // (taps_y, taps_x), contiguous, on the device of x
  void* y;
  int64_t batch, channels;
  int in_x, in_y, out_x, out_y, taps_x, taps_y;
  int up_x, up_y, down_x, down_y, pad_x, pad_y;
  int64_t x_strides[4], y_strides[4];  // (B, C, H, W), in elements
  bool flip, channels_last;  // channels_last: neighbouring threads take neighbouring channels
  double gain;
  c10::ScalarType dtype;
};

void upfirdn2d_cpu(const Upfirdn2d& args);
void upfirdn2d_cuda(const Upfirdn2d& args, void* stream);

// The first tap k >= 0 for which q + k is a multiple of up.
EG3D_HD int first_tap(int q, int up) {
  const int rest = q % up;
  return rest == 0 ? 0 : rest > 0 ? up - rest : -rest;
}

// Element i of y, counted over (B, C, H, W), or (B, H, W, C) for channels_last. Index is wide enough for their number.
template <typename T, typename Index> EG3D_HD void upfirdn2d_element(const Upfirdn2d& args, Index i) {
  using A = typename Accumulator<T>::type;
  Index c = 0;
  if (args.channels_last) c = i % Index(args.channels), i /= Index(args.channels);
  const int out_x = int(i % Index(args.out_x));
  i /= Index(args.out_x);
  const int out_y = int(i % Index(args.out_y));
  i /= Index(args.out_y);
  if (!args.channels_last) c = i % Index(args.channels), i /= Index(args.channels);

  const T* x = static_cast<const T*>(args.x) + int64_t(i) * args.x_strides[0] + int64_t(c) * args.x_strides[1];
  const int q_x = out_x * args.down_x - args.pad_x, q_y = out_y * args.down_y - args.pad_y;
  const int k_x = first_tap(q_x, args.up_x), k_y = first_tap(q_y, args.up_y);
  A sum = A(0);
  int row = (q_y + k_y) / args.up_y;
  for (int ky = k_y; ky < args.taps_y; ky += args.up_y, ++row) {
    if (row < 0 || row >= args.in_y) continue;
    const float* f = args.f + (args.flip ? ky : args.taps_y - 1 - ky) * args.taps_x;
    int column = (q_x + k_x) / args.up_x;
    for (int kx = k_x; kx < args.taps_x; kx += args.up_x, ++column) {
      if (column < 0 || column >= args.in_x) continue;
      sum += A(f[args.flip ? kx : args.taps_x - 1 - kx]) * A(x[row * args.x_strides[2] + column * args.x_strides[3]]);
    }
  }
  T* y = static_cast<T*>(args.y) + int64_t(i) * args.y_strides[0] + int64_t(c) * args.y_strides[1];
  y[out_y * args.y_strides[2] + out_x * args.y_strides[3]] = T(A(args.gain) * sum);
}

}  // namespace eg3d
