#include "bias_act.h"

#include <algorithm>

#include "parallel.h"

namespace eg3d {
namespace {

constexpr int64_t GRAIN = 32768;  // elements for which a thread is worth waking

template <typename T> void by_element(const BiasAct& args) {
  parallel_for(0, args.numel, GRAIN, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) bias_act_element<T, int64_t>(args, i);
  });
}

// `count` neighbours with one bias, for max(u, alpha * u) kinds of activation with slope `below` under zero.
void run_of_lines(const float* x, const float* t, float* y, int64_t count, float b, float below, const BiasAct& args) {
  const float gain = float(args.gain), limit = args.clamp < 0 ? INFINITY : float(args.clamp);
  if (args.order == 0) {
    for (int64_t i = 0; i < count; ++i) {
      const float u = x[i] + b, v = gain * (u > 0 ? u : below * u), low = v < -limit ? -limit : v;
      y[i] = low > limit ? limit : low;
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const float u = x[i] + b, slope = gain * (u > 0 ? 1.0f : below), v = slope * u;
    y[i] = (v >= -limit) & (v <= limit) ? t[i] * slope : 0.0f;
  }
}

// linear, relu and lrelu in float, up to the first derivative, in loops the compiler makes vectors of.
void by_run(const BiasAct& args) {
  const auto *x = static_cast<const float*>(args.x), *b = static_cast<const float*>(args.b);
  const auto* t = static_cast<const float*>(args.t);
  auto* y = static_cast<float*>(args.y);
  const float below = args.act == LINEAR ? 1.0f : args.act == RELU ? 0.0f : float(args.alpha);
  const int64_t run = b ? args.step : args.numel;
  parallel_for(0, args.numel, GRAIN, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const int64_t stop = std::min(end, (i / run + 1) * run);
      const float bias = b ? b[(i / run) % args.channels] : 0.0f;
      run_of_lines(x + i, t ? t + i : nullptr, y + i, stop - i, bias, below, args);
      i = stop;
    }
  });
}

}  // namespace

void bias_act_cpu(const BiasAct& args) {
  const bool lines = args.act == LINEAR || args.act == RELU || args.act == LRELU;
  switch (args.dtype) {
    case c10::ScalarType::Float:
      return lines && args.order < 2 && (!args.b || args.step >= 8) ? by_run(args) : by_element<float>(args);
    case c10::ScalarType::Double:
      return by_element<double>(args);
    case c10::ScalarType::Half:
      return by_element<c10::Half>(args);
    default:
      return by_element<c10::BFloat16>(args);
  }
}

}  // namespace eg3d
