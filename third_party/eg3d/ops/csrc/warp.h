// 32 lanes that work together: phases, which every lane runs, and exchanges of numbers between them. On a GPU the lanes
// are a warp and exchanges are shuffles; on a CPU they are loops, so that tests there run the program of a GPU.
// Exchanges are not called by lanes but between phases, so that no lane can miss one.
#pragma once

#include "lanes.h"

#ifdef __CUDACC__
#define EG3D_DEVICE __device__ __forceinline__
#define EG3D_UNROLL _Pragma("unroll")
#define EG3D_ROLLED _Pragma("unroll 1")
#else
#define EG3D_DEVICE inline
#define EG3D_UNROLL
#define EG3D_ROLLED
#endif

namespace eg3d {

constexpr int WARP = 32;
constexpr int GROUP = 8;  // neighbouring lanes that read a texel together

#ifdef __CUDACC__

// A value of each lane, in a register.
template <typename T> struct Own {
  T value;
  EG3D_DEVICE T& operator()(int) { return value; }
  EG3D_DEVICE const T& operator()(int) const { return value; }
};

struct Warp {
  static constexpr unsigned ALL = 0xffffffffu;

  // A phase; what a lane writes to shared memory is there for the others in the next one.
  template <typename Phase> EG3D_DEVICE void operator()(const Phase& phase) const { apart(phase), __syncwarp(); }

  // A phase that touches no shared memory.
  template <typename Phase> EG3D_DEVICE void apart(const Phase& phase) const { phase(int(threadIdx.x) % WARP); }

  // The value of one lane, for all.
  template <typename T> EG3D_DEVICE T of(const Own<T>& x, int lane) const { return __shfl_sync(ALL, x.value, lane); }

  // The value of lane `place` of each group, for that group.
  template <typename T> EG3D_DEVICE Own<T> of_group(const Own<T>& x, int place) const {
    return {__shfl_sync(ALL, x.value, place, GROUP)};
  }

  // The value of lane - by, or the lane's own one where there is none.
  template <typename T> EG3D_DEVICE Own<T> below(const Own<T>& x, int by) const {
    return {__shfl_up_sync(ALL, x.value, by)};
  }

  // The value of lane ^ bit.
  template <typename T> EG3D_DEVICE Own<T> across(const Own<T>& x, int bit) const {
    return {__shfl_xor_sync(ALL, x.value, bit)};
  }

  EG3D_DEVICE bool all(const Own<bool>& x) const { return __all_sync(ALL, x.value); }
};

#else

template <typename T> struct Own {
  T values[WARP];
  T& operator()(int lane) { return values[lane]; }
  const T& operator()(int lane) const { return values[lane]; }
};

// With both orders of lanes, no phase can rely on what another lane does in it.
struct Warp {
  bool upward = false;

  template <typename Phase> void operator()(const Phase& phase) const { apart(phase); }
  template <typename Phase> void apart(const Phase& phase) const {
    for (int i = 0; i < WARP; ++i) phase(upward ? i : WARP - 1 - i);
  }
  template <typename T> T of(const Own<T>& x, int lane) const { return x(lane); }
  template <typename T> Own<T> of_group(const Own<T>& x, int place) const {
    return made<T>([&](int lane) { return x(lane / GROUP * GROUP + place); });
  }
  template <typename T> Own<T> below(const Own<T>& x, int by) const {
    return made<T>([&](int lane) { return x(lane < by ? lane : lane - by); });
  }
  template <typename T> Own<T> across(const Own<T>& x, int bit) const {
    return made<T>([&](int lane) { return x(lane ^ bit); });
  }
  bool all(const Own<bool>& x) const {
    bool found = true;
    for (int lane = 0; lane < WARP; ++lane) found = found && x(lane);
    return found;
  }

 private:
  template <typename T, typename Value> static Own<T> made(const Value& value) {
    Own<T> result;
    for (int lane = 0; lane < WARP; ++lane) result(lane) = value(lane);
    return result;
  }
};

#endif

// Adds to (multiplies) the value of each lane those of all lanes below it.
template <bool PRODUCT> EG3D_DEVICE void scan(const Warp& warp, Own<float>& x) {
  EG3D_UNROLL
  for (int by = 1; by < WARP; by *= 2) {
    const Own<float> lower = warp.below(x, by);
    warp.apart([&](int lane) { 
      const float joined = PRODUCT ? lower(lane) * x(lane) : lower(lane) + x(lane);
      x(lane) = lane < by ? x(lane) : joined;
    });
  }
}

// The sum over the lanes.
EG3D_DEVICE float sum(const Warp& warp, Own<float> x) {
  EG3D_UNROLL
  for (int bit = WARP / 2; bit > 0; bit /= 2) {
    const Own<float> other = warp.across(x, bit);
    warp.apart([&](int lane) { x(lane) += other(lane); });
  }
  return warp.of(x, 0);
}

// For each N lanes: lane k of them gets the sum over them of x[k], in x[0]; the rest of x is used up. HALF is N / 2.
template <int HALF, int N> EG3D_DEVICE void sum_columns(const Warp& warp, Own<float> (&x)[N]) {
  EG3D_UNROLL
  for (int k = 0; k < HALF; ++k) {
    Own<float> given;
    warp.apart([&](int lane) { given(lane) = lane & HALF ? x[k](lane) : x[k + HALF](lane); });
    const Own<float> got = warp.across(given, HALF);
    warp.apart([&](int lane) { x[k](lane) = (lane & HALF ? x[k + HALF](lane) : x[k](lane)) + got(lane); });
  }
  if constexpr (HALF > 1) sum_columns<HALF / 2>(warp, x);
}

// In each group, x[i * STEP + e * APART] of lane j and x[j * STEP + e * APART] of lane i change places, 0 <= i, j <
// GROUP, for four e.
template <int STEP, int APART, int HALF = GROUP / 2>
EG3D_DEVICE void transpose(const Warp& warp, Own<float> (&x)[4 * GROUP]) {
  EG3D_UNROLL
  for (int k = 0; k < 2 * GROUP; ++k) {
    const int i = k / 4 / HALF * 2 * HALF + k / 4 % HALF, at = i * STEP + k % 4 * APART;  // i without bit HALF
    Own<float>&low = x[at], &high = x[at + HALF * STEP];
    Own<float> given;
    warp.apart([&](int lane) { given(lane) = lane & HALF ? low(lane) : high(lane); });
    const Own<float> got = warp.across(given, HALF);
    warp.apart([&](int lane) {
      low(lane) = lane & HALF ? got(lane) : low(lane);
      high(lane) = lane & HALF ? high(lane) : got(lane);
    });
  }
  if constexpr (HALF > 1) transpose<STEP, APART, HALF / 2>(warp, x);
}

}  // namespace eg3d
