// Adding of gradients by many at once: as floats, whose order the last bits depend on, or as whole numbers.
#pragma once

#include "net.h"

namespace eg3d {

#ifdef __CUDACC__
EG3D_DEVICE void add(float* to, float value) { atomicAdd(to, value); }
EG3D_DEVICE void add(int64_t* to, int64_t value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
}
EG3D_DEVICE void raise(int32_t* to, int32_t value) {
  if (value > *static_cast<volatile int32_t*>(to)) atomicMax(to, value);
}
#else
EG3D_DEVICE void add(float* to, float value) { *to += value; }
EG3D_DEVICE void add(int64_t* to, int64_t value) { *to += value; }
EG3D_DEVICE void raise(int32_t* to, int32_t value) { *to = value > *to ? value : *to; }
#endif

constexpr int INFINITE = 0x7f800000;  // the bits of infinity, above which there are only NaN

// log2 of the units in 1: sums of numbers as large as the largest stay below 2^62. Not more than a float can hold.
EG3D_DEVICE int unit_bits(const WholeSums& sums) {
  const int bits = 61 - sums.added - ((*sums.most >> 23) - 127);  // the largest is less than 2^(exponent + 1)
  return bits < 120 ? bits : 120;
}

// 2^exponent, of a normal float.
EG3D_DEVICE float power_of_two(int exponent) {
  const int bits = (exponent + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof(power));
  return power;
}

// Adds to number k: of `to`, or of the whole numbers if they are wanted.
EG3D_DEVICE void add(float* to, const WholeSums& sums, int64_t k, float value) {
  if (!sums.most) return add(to + k, value);
  if (sums.to) return add(sums.to + k, int64_t(llrintf(value * power_of_two(unit_bits(sums)))));
  int bits;
  memcpy(&bits, &value, sizeof(bits));
  raise(sums.most, bits & INT32_MAX);
}

// Sum k. If any number was infinite or none, all sums are none: which of them it went to is not known.
EG3D_DEVICE float read(const WholeSums& sums, int64_t k) {
  if (*sums.most >= INFINITE) return NAN;
  return float(double(sums.to[k]) / power_of_two(unit_bits(sums)));
}

// Planes and decoder of a render, one after the other.
EG3D_HD int64_t num_planes_numbers(const Render& r) { return r.batch * 3 * r.height * r.row; }
EG3D_HD int64_t num_whole_sums(const Render& r, const RenderGradients& g) {
  return (g.planes ? num_planes_numbers(r) : 0) + (g.w1 ? Net::size(r.hidden) + 1 : 0);
}
EG3D_DEVICE void read_whole_sum(const Render& r, const RenderGradients& g, int64_t k) {
  const int64_t of_planes = g.planes ? num_planes_numbers(r) : 0;
  if (k < of_planes) g.planes[k] = read(g.whole_planes, k);
  else if (float* to = net_gradient(r, g, k - of_planes)) *to = read(g.whole_net, k - of_planes);
}

}  // namespace eg3d
