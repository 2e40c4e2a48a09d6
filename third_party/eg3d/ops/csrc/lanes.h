// Numbers side by side. `Lanes` is one register of a CPU; `Several` are more, for long chains of operations, so that
// one register is worked on while the others wait: `Wide` two, `Long` six. On a GPU each is a single float, and the
// same functions serve.
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

// What holds for Several holds for each part. A vector type of that size would do, but that compilers take its
// comparisons apart into single numbers.
template <int N> struct Several {
  Lanes part[N];
};

using Wide = Several<2>;
using Long = Several<6>;
#endif

constexpr int LANES = sizeof(Lanes) / sizeof(float), WIDE = sizeof(Wide) / sizeof(float);

template <typename V = Lanes> EG3D_HD V load(const float* from) {
  V x;
  if constexpr (sizeof(V) > sizeof(Lanes))
    for (size_t i = 0; i < sizeof(V) / sizeof(Lanes); ++i) x.part[i] = load(from + i * LANES);
  else
    memcpy(&x, from, sizeof(x));
  return x;
}

template <typename V> EG3D_HD void store(float* to, V x) { memcpy(to, &x, sizeof(x)); }

#ifndef __CUDACC__

EG3D_HD Integers to_int(Lanes x) { return __builtin_convertvector(x, Integers); }
EG3D_HD Lanes to_float(Integers x) { return __builtin_convertvector(x, Lanes); }
EG3D_HD void store(int* to, Integers x) { memcpy(to, &x, sizeof(x)); }

EG3D_HD float sum(Lanes x) {
  typedef float Four __attribute__((vector_size(16)));
  Four parts[LANES / 4];
  memcpy(parts, &x, sizeof(x));
  Four total = parts[0];
  for (int i = 1; i < LANES / 4; ++i) total += parts[i];
  return (total[0] + total[2]) + (total[1] + total[3]);
}

template <int N> EG3D_HD void store(float* to, Several<N> x) {
  for (int i = 0; i < N; ++i) store(to + i * LANES, x.part[i]);
}

#define EG3D_SEVERAL(op)                                                      \
  template <int N> EG3D_HD Several<N> operator op(Several<N> x, Several<N> y) { \
    for (int i = 0; i < N; ++i) x.part[i] = x.part[i] op y.part[i];           \
    return x;                                                                 \
  }                                                                           \
  template <int N> EG3D_HD Several<N> operator op(Several<N> x, float y) {    \
    for (int i = 0; i < N; ++i) x.part[i] = x.part[i] op y;                   \
    return x;                                                                 \
  }                                                                           \
  template <int N> EG3D_HD Several<N> operator op(float x, Several<N> y) {    \
    for (int i = 0; i < N; ++i) y.part[i] = x op y.part[i];                   \
    return y;                                                                 \
  }
EG3D_SEVERAL(+)
EG3D_SEVERAL(-)
EG3D_SEVERAL(*)
#undef EG3D_SEVERAL

template <int N> EG3D_HD Several<N> operator-(Several<N> x) {
  for (int i = 0; i < N; ++i) x.part[i] = -x.part[i];
  return x;
}
template <int N> EG3D_HD Several<N>& operator+=(Several<N>& x, Several<N> y) { return x = x + y; }
EG3D_HD float sum(Wide x) { return sum(x.part[0] + x.part[1]); }

#if defined(__AVX512F__) && !defined(__clang__)
constexpr unsigned short EVERY = 0xffff;  // lane, in what GCC's builtins take for a mask
constexpr int ROUND_AS_SET = 4;
#endif

// One instruction on x86, which compilers do not find in the general form; of two operands it returns the second if
// either is NaN, which has to stay NaN. Builtins, since immintrin.h takes a second to read.
EG3D_HD Lanes at_least(Lanes x, float limit) {
#if defined(__AVX512F__) && defined(__clang__)
  return _mm512_max_ps(Lanes{} + limit, x);
#elif defined(__AVX512F__)
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

// 1 / x within 2e-7 of itself, by Newton's step from 12 bits: a division takes as long as ten products.
EG3D_HD Lanes reciprocal(Lanes x) {
#if defined(__AVX512F__) && defined(__clang__)
  const Lanes near = _mm512_rcp14_ps(x);
#elif defined(__AVX512F__)
  const Lanes near = __builtin_ia32_rcp14ps512_mask(x, Lanes{}, EVERY);
#elif defined(__AVX__)
  const Lanes near = __builtin_ia32_rcpps256(x);
#else
  const Lanes near = 1.0f / x;
#endif
  return near * (2.0f - x * near);
}

// e^x for -87 <= x <= 88: 2^n p(r), n = round(x / ln 2), |r| <= ln 2 / 2, where p is fitted to 4e-9 of the value.
// Adding 1.5 * 2^23 rounds to whole numbers, which are then the lowest bits. That ln 2 is rounded to 2e-9 costs n times
// that, less than the rounding of an x as large.
template <int N> EG3D_HD Several<N> exponential_inside(Several<N> x) {
  const Several<N> rounding = x * 1.44269504f + 12582912.0f;
  const Several<N> r = x - (rounding - 12582912.0f) * 0.693147182f;
  Several<N> p = 0.001386378659f * r + 0.008367476054f;
  p = p * r + 0.04166723788f;
  p = p * r + 0.1666653454f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  for (int i = 0; i < N; ++i) p.part[i] = times_power_of_two(p.part[i], rounding.part[i]);
  return p;
}

// e^x, held at the limits of that range beyond it.
template <int N> EG3D_HD Several<N> exponential(Several<N> x) {
  for (int i = 0; i < N; ++i) x.part[i] = at_least(at_most(x.part[i], 88.0f), -87.0f);
  return exponential_inside(x);
}

// e^-|x|, held likewise.
template <int N> EG3D_HD Several<N> exponential_below_zero(Several<N> x) {
  for (int i = 0; i < N; ++i) x.part[i] = at_least(below_zero(x.part[i]), -87.0f);
  return exponential_inside(x);
}

template <int N> EG3D_HD Several<N> sigmoid(Several<N> x) {
  x = 1.0f + exponential(-x);
  for (int i = 0; i < N; ++i) x.part[i] = reciprocal(x.part[i]);
  return x;
}

// log(1 + u) for u in [0, 1], fitted to 1.2e-7.
template <int N> EG3D_HD Several<N> log_one_plus(Several<N> u) {
  Several<N> p = 0.005253457929939032f * u - 0.02958850748836994f;
  p = p * u + 0.07836166769266129f;
  p = p * u - 0.13674770295619965f;
  p = p * u + 0.19111430644989014f;
  p = p * u - 0.24844369292259216f;
  p = p * u + 0.33319270610809326f;
  p = p * u - 0.49999502301216125f;
  p = p * u + 1.0f;
  return p * u;
}

template <int N> EG3D_HD Several<N> softplus(Several<N> x) {
  const Several<N> rest = log_one_plus(exponential_below_zero(x));
  for (int i = 0; i < N; ++i) x.part[i] = at_least(x.part[i], 0.0f);
  return x + rest;
}

// work(kind, i) for places 0 <= i < `count`, a multiple of those in a Wide; `kind` is a Long or a Wide, of which the
// numbers from i on make one.
template <typename Work> EG3D_HD void along(int64_t count, const Work& work) {
  constexpr int LONG = sizeof(Long) / sizeof(float);
  int64_t i = 0;
  for (; i + LONG <= count; i += LONG) work(Long{}, i);
  for (; i < count; i += WIDE) work(Wide{}, i);
}

#endif

}  // namespace eg3d
