// y = clamp(gain * act(x + b)) and its first two derivatives, one element at a time: shared by CPU and GPU.
#pragma once

#include <c10/core/ScalarType.h>

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define EG3D_HD __host__ __device__ __forceinline__
#else
#define EG3D_HD inline
#endif

namespace eg3d {

// In the order of ACTIVATIONS in bias_act.py.
enum Activation : int { LINEAR, RELU, LRELU, TANH, SIGMOID, ELU, SELU, SOFTPLUS, SWISH };

// x, t and y share one dense layout of `numel` elements; element i belongs to bias (i / step) % channels.
struct BiasAct {
  const void* x;
  const void* b;  // or null
  const void* t;  // what the derivative is multiplied by; null for order 0
  void* y;
  int64_t numel, step, channels;
  int act, order;  // order 0: the value; 1, 2: t * gain * act^(order)(x + b), 0 where clamped
  double alpha, gain, clamp;  // clamp < 0: no limit
  c10::ScalarType dtype;
};

void bias_act_cpu(const BiasAct& args);
void bias_act_cuda(const BiasAct& args, void* stream);

// Half types are computed in float.
template <typename T> struct Accumulator { using type = float; };
template <> struct Accumulator<double> { using type = double; };

template <typename A> EG3D_HD A sigmoid(A u) { return A(1) / (A(1) + std::exp(-u)); }

// The order-th derivative of an activation at u.
template <typename A> EG3D_HD A activation(int act, int order, A u, A alpha) {
  constexpr A lambda = A(1.0507009873554804934193349852946), scale = lambda * A(1.6732632423543772848170429916717);
  switch (act) {
    case RELU:
      return order == 0 ? (u > A(0) ? u : A(0)) : A(order == 1 && u > A(0));
    case LRELU:
      return order == 0 ? (u > A(0) ? u : alpha * u) : order == 1 ? (u > A(0) ? A(1) : alpha) : A(0);
    case TANH: {
      const A t = std::tanh(u), slope = A(1) - t * t;
      return order == 0 ? t : order == 1 ? slope : A(-2) * t * slope;
    }
    case SIGMOID: {
      const A s = sigmoid(u), slope = s * (A(1) - s);
      return order == 0 ? s : order == 1 ? slope : slope * (A(1) - A(2) * s);
    }
    case ELU:
      if (u > A(0)) return order == 0 ? u : A(order == 1);
      return order == 0 ? std::expm1(u) : std::exp(u);
    case SELU:
      if (u > A(0)) return order == 0 ? lambda * u : order == 1 ? lambda : A(0);
      return scale * (order == 0 ? std::expm1(u) : std::exp(u));
    case SOFTPLUS: {
      if (order == 0) return (u > A(0) ? u : A(0)) + std::log1p(std::exp(-std::abs(u)));
      const A s = sigmoid(u);
      return order == 1 ? s : s * (A(1) - s);
    }
    case SWISH: {
      const A s = sigmoid(u), r = A(1) - s;
      return order == 0 ? u * s : order == 1 ? s * (A(1) + u * r) : s * r * (A(2) + u * (r - s));
    }
    default:
      return order == 0 ? u : A(order == 1);
  }
}

// Element i of y. Index is wide enough for numel.
template <typename T, typename Index> EG3D_HD void bias_act_element(const BiasAct& args, Index i) {
  using A = typename Accumulator<T>::type;
  const A alpha = A(args.alpha), gain = A(args.gain), clamp = A(args.clamp);
  A u = A(static_cast<const T*>(args.x)[i]);
  if (args.b) u += A(static_cast<const T*>(args.b)[(i / Index(args.step)) % Index(args.channels)]);
  A y = gain * activation(args.act, 0, u, alpha);
  if (args.order == 0) {
    if (clamp >= A(0)) y = y < -clamp ? -clamp : y > clamp ? clamp : y;
  } else {
    const bool inside = clamp < A(0) || (y >= -clamp && y <= clamp);
    const A t = A(static_cast<const T*>(args.t)[i]);
    y = inside ? t * gain * activation(args.act, args.order, u, alpha) : A(0);
  }
  static_cast<T*>(args.y)[i] = T(y);
}

}  // namespace eg3d
