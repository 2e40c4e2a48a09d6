// The samples of one ray by 32 lanes: their order, their weights and the weights' gradients, and the distribution of
// fine samples. The definitions are those of ray.h, but sums and products are trees of float32 in place of double.
#pragma once

#include "net.h"
#include "ray.h"

namespace eg3d {

// An integer in the order of the depths: -0 equals 0, and what is not a number comes last.
EG3D_HD int sort_key(float depth) {
  int bits;
  memcpy(&bits, &depth, sizeof(bits));
  if (depth != depth) return INT32_MAX - 1;  // one less, so that it may be added
  return depth == 0.0f ? 0 : bits ^ ((bits >> 31) & INT32_MAX);
}

// How many of `count` depths in ascending order lie before a key.
EG3D_DEVICE int count_before(const float* depths, int count, int key) {
  int low = 0;
  while (low < count) {
    const int middle = (low + count) / 2;
    if (sort_key(depths[middle]) < key) low = middle + 1;
    else count = middle;
  }
  return low;
}

// Puts samples [begin, end) in ascending order of their depths, equal ones as they stand. Each finds its place by
// counting, unless all stand in order.
EG3D_DEVICE void sort_part(const Warp& warp, int begin, int end, const Scratch& from, float* depths, float* densities) {
  Own<bool> fit;
  warp([&](int lane) {
    fit(lane) = true;
    for (int k = begin + lane; k + 1 < end; k += WARP)
      fit(lane) = fit(lane) && sort_key(from.depths[k]) <= sort_key(from.depths[k + 1]);
  });
  const bool in_order = warp.all(fit);
  warp([&](int lane) {
    for (int k = begin + lane; k < end; k += WARP) {
      const int key = sort_key(from.depths[k]);
      int place = in_order ? k : begin;
      for (int j = begin; j < end && !in_order; ++j) place += sort_key(from.depths[j]) < key + (j < k);
      depths[place] = from.depths[k], densities[place] = from.densities[k];
    }
  });
}

// Puts all samples in ascending order; of equal ones the first stays first. Uses the memory of weights.
EG3D_DEVICE void sort_samples(const Warp& warp, int coarse, int num, const Scratch& s) {
  float *depths = s.weights, *densities = s.transmittance;
  sort_part(warp, 0, coarse, s, depths, densities);
  sort_part(warp, coarse, num, s, depths, densities);
  warp([&](int lane) {
    for (int k = lane; k < num; k += WARP) {
      const int key = sort_key(depths[k]);
      const int place = k < coarse ? k + count_before(depths + coarse, num - coarse, key)
                                   : k - coarse + count_before(depths, coarse, key + 1);
      s.depths[place] = depths[k], s.densities[place] = densities[k];
    }
  });
}

// What of the light passes interval k, exp(-softplus(middle density - 1) length).
EG3D_DEVICE float passed(const Scratch& s, int k) {
  const float middle = (s.densities[k] + s.densities[k + 1]) * 0.5f;
  return exponential(-softplus(middle - 1.0f) * (s.depths[k + 1] - s.depths[k]));
}

// Transmittances and weights of the intervals between the first `num` samples; returns the sum of the weights.
EG3D_DEVICE float march(const Warp& warp, int num, const Scratch& s) {
  float before = 1.0f, total = 0.0f;
  for (int first = 0; first + 1 < num; first += WARP) {
    Own<float> weight, product;
    warp([&](int lane) {
      const int k = first + lane;
      const float part = k + 1 < num ? passed(s, k) : 1.0f;
      weight(lane) = 1.0f - part, product(lane) = part + 1e-10f;
    });
    scan<true>(warp, product);
    const Own<float> lower = warp.below(product, 1);
    warp([&](int lane) {
      const int k = first + lane;
      const float reached = lane > 0 ? before * lower(lane) : before;
      weight(lane) *= reached;
      if (k + 1 < num) s.transmittance[k] = reached, s.weights[k] = weight(lane);
    });
    total += sum(warp, weight);
    before *= warp.of(product, WARP - 1);
  }
  return total;
}

// Mean of the intervals' middles under their weights; infinite for a ray without weight.
EG3D_DEVICE float mean_depth(const Warp& warp, int num, float total, const Scratch& s) {
  Own<float> weighted;
  warp([&](int lane) {
    weighted(lane) = 0.0f;
    for (int k = lane; k + 1 < num; k += WARP)
      weighted(lane) += s.weights[k] * ((s.depths[k] + s.depths[k + 1]) * 0.5f);
  });
  const float found = sum(warp, weighted);
  return total > 0.0f ? found / total : INFINITY;
}

// The distribution of fine samples (see `distribute` in ray.h) as a cumulative sum over num - 2 limits.
EG3D_DEVICE void distribute(const Warp& warp, const float* weights, int num, float* cdf) {
  const int bins = num - 3;
  float total = 0.0f, below = 0.0f;
  for (int first = 0; first < bins; first += WARP) {
    Own<float> share;
    warp([&](int lane) {
      const int i = first + lane;
      share(lane) = i < bins ? smoothed(weights, i) : 0.0f;
      if (i < bins) cdf[i + 1] = share(lane);
    });
    total += sum(warp, share);
  }
  for (int first = 0; first < bins; first += WARP) {
    Own<float> share;
    warp([&](int lane) { share(lane) = first + lane < bins ? cdf[first + lane + 1] / total : 0.0f; });
    scan<false>(warp, share);
    warp([&](int lane) {
      if (first + lane < bins) cdf[first + lane + 1] = below + share(lane);
      if (first + lane == 0) cdf[0] = 0.0f;
    });
    below += warp.of(share, WARP - 1);
  }
}

// Gradients of the densities from those of the samples' shares, which stand in d_rows; there, too. d_middle(k) is what
// interval k's weight gets otherwise. Uses up the transmittances.
template <typename Middle>
EG3D_DEVICE void march_backward(const Warp& warp, int num, const Scratch& s, const Middle& d_middle) {
  float behind = 0.0f;  // sum over the intervals behind of d_weight * weight
  for (int first = 0; first + 1 < num; first += WARP) {
    Own<float> d_weight, part;
    warp([&](int lane) {
      const int k = num - 2 - first - lane;
      d_weight(lane) = k >= 0 ? (s.d_rows[k] + s.d_rows[k + 1]) * 0.5f + d_middle(k) : 0.0f;
      part(lane) = k >= 0 ? d_weight(lane) * s.weights[k] : 0.0f;
    });
    scan<false>(warp, part);
    const Own<float> lower = warp.below(part, 1);
    warp([&](int lane) {
      const int k = num - 2 - first - lane;
      if (k < 0) return;
      const float through = passed(s, k), after = lane > 0 ? behind + lower(lane) : behind;
      const float d_passed = after / (through + 1e-10f) - d_weight(lane) * s.transmittance[k];
      const float length = s.depths[k + 1] - s.depths[k], middle = (s.densities[k] + s.densities[k + 1]) * 0.5f;
      s.transmittance[k] = -d_passed * through * length * sigmoid(middle - 1.0f);  // now the middle density's gradient
    });
    behind += warp.of(part, WARP - 1);
  }
  warp([&](int lane) {
    for (int k = lane; k < num; k += WARP) s.d_rows[k] = share(s.transmittance, k, num);
  });
}

}  // namespace eg3d
