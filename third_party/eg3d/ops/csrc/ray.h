// The maths of one ray: where samples meet the planes, where fine samples lie, how samples are composited, and the
// gradients of all that. Shared by CPU and GPU; definitions in eg3d/rendering (planes.py, sampling.py, marching.py).
// Sums and products along a ray are in double, as PyTorch's cumulative ones are; they are few. Arrays of samples and
// intervals have room for WIDE numbers more than there are, which are read and written, and mean nothing.
#pragma once

#include "lanes.h"

namespace eg3d {

constexpr float NEGLIGIBLE = 1e-8f;  // samples of a smaller share of their ray are not given colours
constexpr float WIDEN = 0.001f;      // colours reach slightly beyond [0, 1] (decoder.py)

// One axis of a plane of `size` texels: the two neighbours of a point (clamped to the plane), their weights (0 for a
// neighbour outside of the plane) and the weights' derivatives in the point's coordinate u, [-1, 1] inside the plane.
// Float and Int are float and int, or vectors of them.
template <typename Float, typename Int> struct Neighbours {
  Int first, step;
  Float low, high, low_slope, high_slope;
};

template <typename Float, typename Int> EG3D_HD Neighbours<Float, Int> neighbours(Float u, int size) {
  const Float nothing{}, before = nothing - 2.0f, beyond = nothing + float(size + 1), slope = nothing + size * 0.5f;
  const Int first_texel{}, last_texel = first_texel + (size - 1);
  Float at = ((u + 1.0f) * float(size) - 1.0f) * 0.5f;
  at = at < before ? before : at;  // far points: outside all the same, and small enough for an int
  at = at > beyond ? beyond : at;
  const Int toward_zero = to_int(at), i = to_float(toward_zero) > at ? toward_zero - 1 : toward_zero, next = i + 1;
  const Float part = at - to_float(i);
  Int first = i < first_texel ? first_texel : i, second = next < first_texel ? first_texel : next;
  first = first > last_texel ? last_texel : first;
  second = second > last_texel ? last_texel : second;
  return {first, second - first, i == first ? 1.0f - part : nothing, next == second ? part : nothing,
          i == first ? -slope : nothing, next == second ? slope : nothing};
}

// Weights w_k = (1 - passed_k) transmittance_k of the intervals between `num` samples that stand in order, where
// passed = exp(-softplus(middle density - 1) length) and transmittance_k = prod_{j<k} (passed_j + 1e-10).
struct Intervals {
  float *passed, *transmittance, *weights;  // num - 1 numbers each
};

// `passed` of intervals first, first + step, ...; a step of WIDE for one worker, whose vectors then cover all.
EG3D_HD void pass(const float* depths, const float* densities, int num, int first, int step, const Intervals& out) {
  for (int k = first; k + 1 < num; k += step) {
    const Wide middle = (load<Wide>(densities + k) + load<Wide>(densities + k + 1)) * 0.5f;
    const Wide length = load<Wide>(depths + k + 1) - load<Wide>(depths + k);
    store(out.passed + k, exponential(-softplus(middle - 1.0f) * length));
  }
}

// Transmittances and weights from `passed`; returns the sum of the weights.
EG3D_HD float accumulate(int num, const Intervals& out) {
  double transmittance = 1.0, total = 0.0;
  for (int i = 0; i + 1 < num; ++i) {
    out.transmittance[i] = float(transmittance);
    out.weights[i] = (1.0f - out.passed[i]) * out.transmittance[i];
    total += out.weights[i];
    transmittance *= out.passed[i] + 1e-10f;
  }
  return float(total);
}

// d_weights (num - 1), overwritten -> d_densities (num).
EG3D_HD void march_backward(const float* depths, const float* densities, int num, const Intervals& in, float* d_weights,
                            float* d_densities) {
  double behind = 0.0;  // sum over the intervals behind k of d_weight * weight
  for (int k = num - 2; k >= 0; --k) {
    const float d_passed = float(behind) / (in.passed[k] + 1e-10f) - d_weights[k] * in.transmittance[k];
    behind += d_weights[k] * in.weights[k];
    d_weights[k] = -d_passed * in.passed[k] * (depths[k + 1] - depths[k]);  // now that of softplus(middle - 1)
  }
  for (int k = 0; k + 1 < num; k += WIDE) {
    const Wide middle = (load<Wide>(densities + k) + load<Wide>(densities + k + 1)) * 0.5f;
    store(d_weights + k, load<Wide>(d_weights + k) * sigmoid(middle - 1.0f));
  }
  for (int i = 0; i < num; ++i)
    d_densities[i] = ((i > 0 ? d_weights[i - 1] : 0.0f) + (i + 1 < num ? d_weights[i] : 0.0f)) * 0.5f;
}

// Share of sample k in sums over intervals of averaged ends: half of each interval beside it.
EG3D_HD float share(const float* weights, int k, int num) {
  return ((k > 0 ? weights[k - 1] : 0.0f) + (k + 1 < num ? weights[k] : 0.0f)) * 0.5f;
}

// Mean of the intervals' middles under their weights; infinite for a ray without weight.
EG3D_HD float mean_depth(const float* depths, const float* weights, int num, float total) {
  double weighted = 0.0;
  for (int k = 0; k + 1 < num; ++k) weighted += weights[k] * ((depths[k] + depths[k + 1]) * 0.5f);
  return total > 0.0f ? float(weighted) / total : INFINITY;
}

// Entry i + 1 of the smoothed weights: largest of neighbours, averaged.
EG3D_HD float smoothed(const float* weights, int i) {
  const float before = fmaxf(weights[i], weights[i + 1]), after = fmaxf(weights[i + 1], weights[i + 2]);
  return (before + after) * 0.5f + 0.01f + 1e-5f;
}

// The distribution of fine samples (sampling.importance_depths): smoothed coarse weights, as a cumulative sum from 0 to
// 1 over num - 2 limits; num > 3.
EG3D_HD void distribute(const float* weights, int num, float* cdf) {
  const int bins = num - 3;
  double sum = 0.0, below = 0.0;
  for (int i = 0; i < bins; ++i) sum += cdf[i + 1] = smoothed(weights, i);
  cdf[0] = 0.0f;
  for (int i = 1; i <= bins; ++i) cdf[i] = float(below += cdf[i] / float(sum));
}

// The depth at which a uniform number u falls: the inverse of that distribution, linear between the middles of coarse
// samples.
EG3D_HD float fine_depth(const float* depths, const float* cdf, int num, float u) {
  const int bins = num - 3;
  int above = 0, end = bins + 1;  // the first entry beyond u
  while (above < end) {
    const int middle = (above + end) / 2;
    if (cdf[middle] <= u) above = middle + 1;
    else end = middle;
  }
  const int low = above > 0 ? above - 1 : 0, high = above < bins ? above : bins;
  const float low_depth = (depths[low] + depths[low + 1]) * 0.5f;
  const float high_depth = (depths[high] + depths[high + 1]) * 0.5f, width = cdf[high] - cdf[low];
  return low_depth + (u - cdf[low]) / (width < 1e-5f ? 1.0f : width) * (high_depth - low_depth);
}

// Rows [begin, end) in ascending order of their depths, equal ones as they stand, into `order`.
EG3D_HD void sort_rows(const float* depths, int begin, int end, int* order) {
  for (int i = begin; i < end; ++i) {
    int at = i - begin;
    for (; at > 0 && depths[order[at - 1]] > depths[i]; --at) order[at] = order[at - 1];
    order[at] = i;
  }
}

// All rows in ascending order; of equal ones the first row comes first. `room` is for as many numbers.
EG3D_HD void sort_samples(const float* depths, int num_coarse, int num, int* room, int* order) {
  const int num_fine = num - num_coarse;
  sort_rows(depths, 0, num_coarse, room);
  sort_rows(depths, num_coarse, num, room + num_coarse);
  for (int i = 0, coarse = 0, fine = 0; i < num; ++i) {
    const bool take_fine = coarse == num_coarse ||
        (fine < num_fine && depths[room[num_coarse + fine]] < depths[room[coarse]]);
    order[i] = take_fine ? room[num_coarse + fine++] : room[coarse++];
  }
}

}  // namespace eg3d
