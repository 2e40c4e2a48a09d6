// What follows a convolution of a synthesis layer, y = clamp(gain * act(factor x + noise + bias), -limit, limit), and its
// derivative; act has slope 1 above zero and `below` under it. Channels of a pixel are neighbours.
#pragma once

#include "lanes.h"

namespace eg3d {

inline Lanes broadcast(float x) { return Lanes{} + x; }

struct Epilogue {
  const float* factor;  // (batch, channels)
  const float* bias;  // (channels)
  const float* below;  // (channels)
  const float* noise;  // (height, width) of every or of each sample, or null
  int64_t noise_sample;  // stride, 0: every sample
  int channels, width;
  float gain, limit;

  struct Lane {
    Lanes factor, bias, below;
  };

  Lane lane(int64_t sample, int c) const {
    return {load(factor + sample * channels + c), load(bias + c), load(below + c)};
  }

  float noise_at(int64_t sample, int y, int x) const {
    return noise ? noise[sample * noise_sample + int64_t(y) * width + x] : 0.0f;
  }

  Lanes apply(const Lane& lane, Lanes x, float noise) const {
    Lanes u = x * lane.factor + (lane.bias + noise);
    u = gain * (u > 0.0f ? u : lane.below * u);
    u = u < -limit ? broadcast(-limit) : u;
    return u > limit ? broadcast(limit) : u;
  }

  // One pixel: value(c) for its channels from c on.
  template <class Value> void pixel(int64_t sample, int y, int x, const Value& value, float* to) const {
    const float shift = noise_at(sample, y, x);
    for (int c = 0; c < channels; c += LANES) store(to + c, apply(lane(sample, c), value(c), shift));
  }

  // The gradient in u = factor x + noise + bias from that in y.
  Lanes gradient(const Lane& lane, Lanes y, Lanes dy) const {
    const Lanes slope = gain * (y > 0.0f ? broadcast(1.0f) : lane.below);
    return (y < limit) & (y > -limit) ? dy * slope : Lanes{};
  }

  // factor x from y, where it was not clamped.
  Lanes product(const Lane& lane, Lanes y, float noise) const {
    const Lanes u = y / (gain * (y > 0.0f ? broadcast(1.0f) : lane.below));
    return u - noise - lane.bias;
  }
};

}  // namespace eg3d
