// One ray by 32 lanes: the program of the GPU's kernels, which tests run on a CPU (warp.h). Each lane takes one of 32
// samples at a time.
#pragma once

#include "samples_by_lanes.h"
#include "texels_by_lanes.h"

namespace eg3d {

template <typename T> class RayByLanes {
 public:
  EG3D_DEVICE RayByLanes(const Render& render, const Net& decoder, const Scratch& shared, const Warp& lanes,
                         int64_t number)
      : r(render), net(decoder), s(shared), warp(lanes), i(number), num(r.num_coarse + r.num_fine),
        texels(render, shared, lanes, number) {}

  // Depth, weight sum, limits and colours.
  EG3D_DEVICE void forward() const {
    const float total = trace(), depth = mean_depth(warp, num, total, s);
    warp([&](int lane) {
      if (lane > 0) return;
      r.depth[i] = depth, r.total[i] = total;
      r.limits[2 * i] = lowest(), r.limits[2 * i + 1] = highest();
    });
    if (r.features) composite();
  }

  // Adds the ray's gradients; those of the decoder to `sums`, laid out as a Net, or to whole numbers.
  EG3D_DEVICE void backward(const RenderGradients& g, float* sums) const {
    const float total = trace(), depth = mean_depth(warp, num, total, s);
    d_shares(g);
    const float d_depth = total > 0.0f ? g.depth[i] / total : 0.0f, d_total = g.total[i];
    march_backward(warp, num, s, [&](int k) {
      const float middle = (s.depths[k] + s.depths[k + 1]) * 0.5f;
      return d_total + (d_depth != 0.0f ? d_depth * (middle - depth) : 0.0f);
    });
    for (int first = 0; first < num; first += WARP) samples(first, g, sums);
  }

 private:
  // Depths, densities, weights and transmittances of all samples in order; returns the sum of the weights.
  EG3D_DEVICE float trace() const {
    const int coarse = r.num_coarse;
    warp([&](int lane) {
      for (int k = lane; k < coarse; k += WARP) s.depths[k] = r.coarse[i * coarse + k];
    });
    find_densities(0, coarse);
    if (r.num_fine > 0) {
      if (!r.fine_is_depth) march(warp, coarse, s), distribute(warp, s.weights, coarse, s.transmittance);
      warp([&](int lane) {
        for (int k = lane; k < r.num_fine; k += WARP) {
          const float given = r.fine[i * r.num_fine + k];
          s.depths[coarse + k] = r.fine_is_depth ? given : fine_depth(s.depths, s.transmittance, coarse, given);
        }
      });
      find_densities(coarse, num);
      sort_samples(warp, coarse, num, s);
    }
    return march(warp, num, s);
  }

  EG3D_DEVICE void find_densities(int begin, int end) const {
    EG3D_ROLLED
    for (int first = begin; first < end; first += WARP) {
      Channels x;
      texels.gather(first, end, x);
      warp([&](int lane) {
        float sum = r.b2[0];
        for (int unit = 0; unit < r.hidden; ++unit) sum += net.density[unit] * hidden(x, lane, unit);
        if (first + lane < end) s.densities[first + lane] = sum;
      });
    }
  }

  // Coarse samples alone stand as they were given.
  EG3D_DEVICE float lowest() const {
    float low = s.depths[0];
    for (int k = 1; k < num && r.num_fine == 0; ++k) low = fminf(low, s.depths[k]);
    return low;
  }
  EG3D_DEVICE float highest() const {
    float high = s.depths[num - 1];
    for (int k = 0; k + 1 < num && r.num_fine == 0; ++k) high = fmaxf(high, s.depths[k]);
    return high;
  }

  // Value of a hidden unit.
  EG3D_DEVICE float hidden(const Channels& x, int lane, int unit) const {
    float sums[4] = {net.in_b[unit], 0.0f, 0.0f, 0.0f}, four[4];
    EG3D_UNROLL
    for (int c = 0; c < MOST; c += 4) {
      read_four(net.in + unit * MOST + c, four);
      EG3D_UNROLL
      for (int e = 0; e < 4; ++e) sums[e] += four[e] * x[c + e](lane);
    }
    return softplus((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }

  // Colours of a feature, before the sigmoid.
  EG3D_DEVICE void colors(const Channels& x, int lane, float (&out)[MOST]) const {
    EG3D_UNROLL
    for (int d = 0; d < MOST; ++d) out[d] = net.color_b[d];
    EG3D_ROLLED
    for (int unit = 0; unit < r.hidden; ++unit) {
      const float value = hidden(x, lane, unit);
      float four[4];
      EG3D_UNROLL
      for (int d = 0; d < MOST; d += 4) {
        read_four(net.color + unit * MOST + d, four);
        EG3D_UNROLL
        for (int e = 0; e < 4; ++e) out[d + e] += four[e] * value;
      }
    }
  }

  // Composited colours: each lane adds up one of them.
  EG3D_DEVICE void composite() const {
    Own<float> sum;
    warp.apart([&](int lane) { sum(lane) = 0.0f; });
    EG3D_ROLLED
    for (int first = 0; first < num; first += WARP) {
      Own<float> part;
      Own<bool> negligible;
      warp([&](int lane) {
        part(lane) = first + lane < num ? share(s.weights, first + lane, num) : 0.0f;
        negligible(lane) = fabsf(part(lane)) <= NEGLIGIBLE;
      });
      if (warp.all(negligible)) continue;
      Channels x, parts;
      texels.gather(first, num, x);
      warp([&](int lane) {
        float out[MOST];
        colors(x, lane, out);
        EG3D_UNROLL
        for (int d = 0; d < MOST; ++d) parts[d](lane) = negligible(lane) ? 0.0f : part(lane) * widened(out[d]);
      });
      sum_columns<MOST / 2>(warp, parts);
      warp.apart([&](int lane) { sum(lane) += parts[0](lane); });
    }
    warp.apart([&](int lane) {
      if (lane < r.colors) r.features[i * r.colors + lane] = sum(lane);
    });
  }

  // A colour that `colors` gave.
  EG3D_DEVICE float widened(float x) const { return sigmoid(x) * (1.0f + 2.0f * WIDEN) - WIDEN; }

  EG3D_DEVICE float d_feature(const RenderGradients& g, int d) const {
    return d < r.colors ? g.features[i * r.colors + d] : 0.0f;
  }

  // Gradients of the samples' shares of the ray, by the colours.
  EG3D_DEVICE void d_shares(const RenderGradients& g) const {
    EG3D_ROLLED
    for (int first = 0; first < num; first += WARP) {
      Channels x;
      if (g.features) texels.gather(first, num, x);
      warp([&](int lane) {
        float sum = 0.0f, out[MOST];
        if (g.features) {
          colors(x, lane, out);
          EG3D_UNROLL
          for (int d = 0; d < MOST; ++d) sum += d_feature(g, d) * widened(out[d]);
        }
        if (first + lane < num) s.d_rows[first + lane] = sum;
      });
    }
  }

  // Gradients by samples first, first + 1, ... to planes, ray and decoder.
  EG3D_DEVICE void samples(int first, const RenderGradients& g, float* sums) const {
    Channels x, d_out, d_x;
    texels.gather(first, num, x);
    warp([&](int lane) { d_colors(x, lane, first + lane, g, d_out); });
    const bool of_decoder = g.w1 != nullptr;
    if (of_decoder) stage(x, d_out);
    EG3D_ROLLED
    for (int unit = 0; unit < r.hidden; unit += UNITS) {
      warp([&](int lane) {
        EG3D_ROLLED
        for (int k = 0; k < UNITS; ++k) through_unit(lane, first, unit + k, of_decoder, x, d_out, d_x);
      });
      if (of_decoder) collect(first, unit, g, sums);
    }
    if (of_decoder) collect_biases(first, g, sums);
    if (g.planes || g.origins) texels.spread(first, num, d_x, g);
  }

  // Gradients of the colours before the sigmoid.
  EG3D_DEVICE void d_colors(const Channels& x, int lane, int k, const RenderGradients& g, Channels& d_out) const {
    float out[MOST];
    const bool real = g.features && k < num;
    if (real) colors(x, lane, out);
    const float part = real ? share(s.weights, k, num) : 0.0f;
    EG3D_UNROLL
    for (int d = 0; d < MOST; ++d) {
      const float value = real ? sigmoid(out[d]) : 0.0f;
      d_out[d](lane) = real ? d_feature(g, d) * part * value * (1.0f - value) * (1.0f + 2.0f * WIDEN) : 0.0f;
    }
  }

  // Adds the gradients of a lane's sample by a hidden unit to those of its features, and keeps them for the decoder's.
  EG3D_DEVICE void through_unit(int lane, int first, int unit, bool of_decoder, const Channels& x,
                                const Channels& d_out, Channels& d_x) const {
    float value = 0.0f, change = 0.0f;
    if (unit < r.hidden && first + lane < num) {
      float sums[4] = {s.d_rows[first + lane] * net.density[unit], 0.0f, 0.0f, 0.0f}, four[4];
      value = hidden(x, lane, unit);
      EG3D_UNROLL
      for (int d = 0; d < MOST; d += 4) {
        read_four(net.color + unit * MOST + d, four);
        EG3D_UNROLL
        for (int e = 0; e < 4; ++e) sums[e] += four[e] * d_out[d + e](lane);
      }
      change = ((sums[0] + sums[1]) + (sums[2] + sums[3])) * (1.0f - exponential(-value));  // the slope of softplus
    }
    EG3D_UNROLL
    for (int c = 0; c < MOST; c += 4) {
      float four[4] = {};
      if (unit < r.hidden) read_four(net.in + unit * MOST + c, four);
      EG3D_UNROLL
      for (int e = 0; e < 4; ++e) d_x[c + e](lane) = (unit > 0 ? d_x[c + e](lane) : 0.0f) + four[e] * change;
    }
    if (of_decoder) s.hidden[unit % UNITS * WARP + lane] = value, s.d_hidden[unit % UNITS * WARP + lane] = change;
  }

  EG3D_DEVICE void stage(const Channels& x, const Channels& d_out) const {
    warp([&](int lane) {
      EG3D_UNROLL
      for (int c = 0; c < MOST; ++c)
        s.features[lane * PITCH + c] = x[c](lane), s.colors[lane * PITCH + c] = d_out[c](lane);
    });
  }

  // Adds gradients of the decoder by the samples of all lanes, for UNITS units.
  EG3D_DEVICE void collect(int first, int unit, const RenderGradients& g, float* sums) const {
    const Places places(r.hidden);
    EG3D_ROLLED
    for (int second = 0; second < 2; ++second)  // of the two layers, one after the other: registers are few
      warp([&](int lane) {
        float found[UNITS] = {};
        column(second ? s.hidden : s.d_hidden, (second ? s.colors : s.features) + lane, found);
        const int at = (second ? places.color : 0) + unit * MOST + lane;
        EG3D_UNROLL
        for (int u = 0; u < UNITS; ++u)
          if (unit + u < r.hidden) add(sums, g.whole_net, at + u * MOST, found[u]);
      });
    collect_units(first, unit, g, sums);
  }

  // A lane's column of a matrix.
  EG3D_DEVICE void column(const float* rows, const float* from, float (&found)[UNITS]) const {
    EG3D_ROLLED
    for (int k = 0; k < WARP; k += 4) {
      float part[4], four[4];
      EG3D_UNROLL
      for (int e = 0; e < 4; ++e) part[e] = from[(k + e) * PITCH];
      EG3D_UNROLL
      for (int u = 0; u < UNITS; ++u) {
        read_four(rows + u * WARP + k, four);
        EG3D_UNROLL
        for (int e = 0; e < 4; ++e) found[u] += four[e] * part[e];
      }
    }
  }

  // The units' biases and their part of the density's row: four lanes a unit.
  EG3D_DEVICE void collect_units(int first, int unit, const RenderGradients& g, float* sums) const {
    constexpr int EACH = WARP / UNITS;
    const Places places(r.hidden);
    Own<float> in_b, density;
    warp([&](int lane) {
      in_b(lane) = density(lane) = 0.0f;
      for (int k = lane % EACH; k < WARP && first + k < num; k += EACH) {
        in_b(lane) += s.d_hidden[lane / EACH * WARP + k];
        density(lane) += s.hidden[lane / EACH * WARP + k] * s.d_rows[first + k];
      }
    });
    EG3D_UNROLL
    for (int bit = 1; bit < EACH; bit *= 2) {
      const Own<float> b = warp.across(in_b, bit), d = warp.across(density, bit);
      warp.apart([&](int lane) { in_b(lane) += b(lane), density(lane) += d(lane); });
    }
    warp.apart([&](int lane) {
      const int own = unit + lane / EACH;
      if (lane % EACH != 0 || own >= r.hidden) return;
      add(sums, g.whole_net, places.in_b + own, in_b(lane));
      add(sums, g.whole_net, places.density + own, density(lane));
    });
  }

  // The biases of colours and density.
  EG3D_DEVICE void collect_biases(int first, const RenderGradients& g, float* sums) const {
    const Places places(r.hidden);
    Own<float> d_row;
    warp([&](int lane) {
      float color_b = 0.0f;
      for (int k = 0; k < WARP; ++k) color_b += s.colors[k * PITCH + lane];
      add(sums, g.whole_net, places.color_b + lane, color_b);
      d_row(lane) = first + lane < num ? s.d_rows[first + lane] : 0.0f;
    });
    const float density_b = sum(warp, d_row);
    warp.apart([&](int lane) {
      if (lane == 0) add(sums, g.whole_net, places.density_b, density_b);
    });
  }

  const Render& r;
  const Net& net;
  const Scratch& s;
  const Warp& warp;
  const int64_t i;
  const int num;
  const TexelsByLanes<T> texels;
};

}  // namespace eg3d
