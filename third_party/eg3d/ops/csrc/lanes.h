// Numbers side by side. `Lanes` is one register of a CPU; `Wide` is two, for long chains of operations, so that one
// half is worked on while the other waits. On a GPU each is a single float, and the same functions serve.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__clang__) && !defined(__CUDACC__)
#include <immintrin.h>
#endif

#ifdef __CUDACC__
#define EG3D_HD __host__ __device__ __forceinline__
#else
#define EG3D_HD inline __attribute__((always_inline))
#endif

namespace eg3d {

EG3D_HD float exponential(float x) { return expf(x); }
EG3D_HD float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
EG3D_HD float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }
EG3D_HD int to_int(float x) { return int(x); }
EG3D_HD float to_float(int x) { return float(x); }

#ifdef __CUDACC__
using Lanes = float;
using Wide = float;
#else

#if defined(__AVX512F__)
constexpr int REGISTER = 64;
#elif defined(__AVX__)
constexpr int REGISTER = 32;
#else
constexpr int REGISTER = 16;
#endif

typedef float Lanes __attribute__((vector_size(REGISTER)));
typedef int32_t Integers __attribute__((vector_size(REGISTER)));

// What holds for a Wide holds for its halves. A vector type of that size would do, but that compilers take its
// comparisons apart into single numbers.
struct Wide {
  Lanes low, high;
};
#endif

constexpr int LANES = sizeof(Lanes) / sizeof(float), WIDE = sizeof(Wide) / sizeof(float);

template <typename V = Lanes> EG3D_HD V load(const float* from) {
  V x;
  memcpy(&x, from, sizeof(x));
  return x;
}

template <typename V> EG3D_HD void store(float* to, V x) { memcpy(to, &x, sizeof(x)); }

#ifndef __CUDACC__

EG3D_HD Integers to_int(Lanes x) { return __builtin_convertvector(x, Integers); }
EG3D_HD Lanes to_float(Integers x) { return __builtin_convertvector(x, Lanes); }
EG3D_HD void store(int* to, Integers x) { memcpy(to, &x, sizeof(x)); }

EG3D_HD float sum(Lanes x) {
  float total = 0.0f;
  for (int i = 0; i < LANES; ++i) total += x[i];
  return total;
}

template <> EG3D_HD Wide load<Wide>(const float* from) {
  return {load(from), load(from + LANES)};
}

EG3D_HD void store(float* to, Wide x) {
  store(to, x.low);
  store(to + LANES, x.high);
}

#define EG3D_WIDE(op)                                                                                \
  EG3D_HD Wide operator op(Wide x, Wide y) { return {x.low op y.low, x.high op y.high}; }            \
  EG3D_HD Wide operator op(Wide x, float y) { return {x.low op y, x.high op y}; }                    \
  EG3D_HD Wide operator op(float x, Wide y) { return {x op y.low, x op y.high}; }
EG3D_WIDE(+)
EG3D_WIDE(-)
EG3D_WIDE(*)
EG3D_WIDE(/)
#undef EG3D_WIDE

EG3D_HD Wide operator-(Wide x) { return {-x.low, -x.high}; }
EG3D_HD Wide& operator+=(Wide& x, Wide y) { return x = x + y; }
EG3D_HD float sum(Wide x) { return sum(x.low + x.high); }

// One instruction on x86, which compilers do not find in the general form; of two operands it returns the second if
// either is NaN, which has to stay NaN. Builtins, since immintrin.h takes a second to read.
EG3D_HD Lanes at_least(Lanes x, float limit) {
#if defined(__AVX512F__) && defined(__clang__)
  return _mm512_max_ps(Lanes{} + limit, x);
#elif defined(__AVX512F__)
  constexpr unsigned short EVERY = 0xffff;
  constexpr int ROUND_AS_SET = 4;
  return __builtin_ia32_maxps512_mask(Lanes{} + limit, x, Lanes{}, EVERY, ROUND_AS_SET);
#elif defined(__AVX__)
  return __builtin_ia32_maxps256(Lanes{} + limit, x);
#else
  return x < limit ? Lanes{} + limit : x;
#endif
}

EG3D_HD Lanes at_most(Lanes x, float limit) { return -at_least(-x, -limit); }
EG3D_HD Lanes below_zero(Lanes x) { return (Lanes)((Integers)x | INT32_MIN); }  // -|x|
EG3D_HD Lanes times_power_of_two(Lanes x, Lanes bits) { return (Lanes)((Integers)x + ((Integers)bits << 23)); }

// e^x for -87 <= x <= 88: 2^n p(r), n = round(x / ln 2), |r| <= ln 2 / 2, where p is fitted to 1e-7 of the value.
// Adding 1.5 * 2^23 rounds to whole numbers, which are then the lowest bits.
EG3D_HD Wide exponential_inside(Wide x) {
  const Wide rounding = x * 1.44269504f + 12582912.0f, n = rounding - 12582912.0f;
  const Wide r = (x - n * 0.693359375f) + n * 2.12194440e-4f, r2 = r * r;
  const Wide low = (0.16666415333747864f * r + 0.5f) * r2 + (r + 1.0f);
  const Wide high = (0.001394858118146658f * r + 0.008375128731131554f) * r + 0.041666217148303986f;
  const Wide p = high * (r2 * r2) + low;
  return {times_power_of_two(p.low, rounding.low), times_power_of_two(p.high, rounding.high)};
}

// e^x, held at the limits of that range beyond it.
EG3D_HD Wide exponential(Wide x) {
  return exponential_inside({at_most(at_least(x.low, -87.0f), 88.0f), at_most(at_least(x.high, -87.0f), 88.0f)});
}

EG3D_HD Wide sigmoid(Wide x) { return 1.0f / (1.0f + exponential(-x)); }

// log(1 + u) for u in [0, 1], fitted to 1.2e-7.
EG3D_HD Wide log_one_plus(Wide u) {
  const Wide u2 = u * u, u4 = u2 * u2;
  const Wide low = (0.33319270610809326f - 0.24844369292259216f * u) * u2 + (1.0f - 0.49999502301216125f * u);
  const Wide high = (0.07836166769266129f - 0.02958850748836994f * u) * u2 +
      (0.19111430644989014f - 0.13674770295619965f * u);
  return ((0.005253457929939032f * u4 + high) * u4 + low) * u;
}

EG3D_HD Wide softplus(Wide x) {
  const Wide u = exponential_inside({at_least(below_zero(x.low), -87.0f), at_least(below_zero(x.high), -87.0f)});
  return Wide{at_least(x.low, 0.0f), at_least(x.high, 0.0f)} + log_one_plus(u);
}

#endif

}  // namespace eg3d
