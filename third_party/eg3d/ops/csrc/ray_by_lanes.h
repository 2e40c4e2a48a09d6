// One ray by 32 lanes: the program of the GPU's kernels, in phases between which the lanes wait for each other. `Each`
// runs a phase for all lanes: a warp, or a loop (render_lanes_cpu.cpp), so that tests on a CPU cover what a GPU runs.
#pragma once

#include "ray.h"
#include "render.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define EG3D_DEVICE __device__ __forceinline__
#else
#define EG3D_DEVICE inline
#endif

namespace eg3d {

constexpr int WARP = 32;
constexpr int MOST = 32;  // channels of the planes, which have exactly as many, and colours at most
constexpr int PITCH = MOST + 1;

#ifdef __CUDACC__
EG3D_DEVICE void add(float* to, float value) { atomicAdd(to, value); }
EG3D_DEVICE void read_four(const float* from, float* to) {
  const float4 v = __ldg(reinterpret_cast<const float4*>(from));
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
EG3D_DEVICE void read_four(const __half* from, float* to) {
  const uint2 v = __ldg(reinterpret_cast<const uint2*>(from));
  const float2 a = __half22float2(*reinterpret_cast<const __half2*>(&v.x));
  const float2 b = __half22float2(*reinterpret_cast<const __half2*>(&v.y));
  to[0] = a.x, to[1] = a.y, to[2] = b.x, to[3] = b.y;
}
EG3D_DEVICE void read_four(const __nv_bfloat16* from, float* to) {
  const uint2 v = __ldg(reinterpret_cast<const uint2*>(from));
  const float2 a = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&v.x));
  const float2 b = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&v.y));
  to[0] = a.x, to[1] = a.y, to[2] = b.x, to[3] = b.y;
}
#else
EG3D_DEVICE void add(float* to, float value) { *to += value; }
EG3D_DEVICE void read_four(const float* from, float* to) { memcpy(to, from, 4 * sizeof(float)); }
#endif

// The decoder by hidden unit: its row of the first layer (MOST), its columns of the second (MOST colours; the density).
struct Net {
  float *in, *in_b, *color, *density, *color_b;
  static EG3D_HD int64_t size(int hidden) { return int64_t(hidden) * (2 * MOST + 2) + MOST; }
  EG3D_HD Net(float* at, int hidden)
      : in(at), in_b(in + hidden * MOST), color(in_b + hidden), density(color + hidden * MOST),
        color_b(density + hidden) {}
};

// Number k of the array that a Net lies in.
EG3D_DEVICE float net_number(const Render& r, int64_t k) {
  const int h = r.hidden;
  if (k < h * MOST) return r.w1[k];
  k -= h * MOST;
  if (k < h) return r.b1[k];
  k -= h;
  if (k < h * MOST) return k % MOST < r.colors ? r.w2[(1 + k % MOST) * h + k / MOST] : 0.0f;
  k -= h * MOST;
  if (k < h) return r.w2[k];
  k -= h;
  return k < r.colors ? r.b2[1 + k] : 0.0f;
}

// Where the gradient of that number goes.
EG3D_DEVICE float* net_gradient(const Render& r, const RenderGradients& g, int64_t k) {
  const int h = r.hidden;
  if (k < h * MOST) return g.w1 + k;
  k -= h * MOST;
  if (k < h) return g.b1 + k;
  k -= h;
  if (k < h * MOST) return k % MOST < r.colors ? g.w2 + (1 + k % MOST) * h + k / MOST : nullptr;
  k -= h * MOST;
  if (k < h) return g.w2 + k;
  k -= h;
  return k < r.colors ? g.b2 + 1 + k : nullptr;
}

// What the lanes of a ray share. The second part is for gradients, its last arrays for those of the decoder.
struct Scratch {
  float *depths, *densities, *sorted_depths, *sorted_densities, *passed, *transmittance, *weights, *shares, *parts;
  int *order, *room;
  float *d_weights, *d_sorted, *d_rows, *features, *colors, *hidden, *d_hidden;

  static EG3D_HD int row(int num) { return num + WIDE + 1; }
  static EG3D_HD int64_t size(int num, int units, bool gradients, bool of_decoder) {
    return 10 * int64_t(row(num)) + WARP * PITCH + (gradients ? 3 * row(num) : 0) +
        (of_decoder ? 2 * WARP * (PITCH + int64_t(units)) : 0);
  }
  EG3D_HD Scratch(float* at, int num, int units) {
    const int n = row(num);
    depths = at, densities = at + n, sorted_depths = at + 2 * n, sorted_densities = at + 3 * n, passed = at + 4 * n;
    transmittance = at + 5 * n, weights = at + 6 * n, shares = at + 7 * n;
    order = reinterpret_cast<int*>(at + 8 * n), room = reinterpret_cast<int*>(at + 9 * n);
    parts = at + 10 * n;
    d_weights = parts + WARP * PITCH, d_sorted = d_weights + n, d_rows = d_sorted + n;
    features = d_rows + n, colors = features + WARP * PITCH;
    hidden = colors + WARP * PITCH, d_hidden = hidden + int64_t(WARP) * units;
  }
};

// The texels around a point on one plane: offsets from the planes' beginning, bilinear weights over three (the mean of
// the planes), and neighbours for the weights' slopes.
struct Footprint {
  Neighbours<float, int> x, y;
  int64_t offset[4];
  float weight[4];
};

template <typename T> class RayByLanes {
 public:
  EG3D_DEVICE RayByLanes(const Render& render, const Net& decoder, const Scratch& shared, int64_t number)
      : r(render), net(decoder), s(shared), i(number), num(r.num_coarse + r.num_fine),
        item(i / r.rays * 3 * r.height * r.row), planes(static_cast<const T*>(r.planes) + item) {}

  // Depth, weight sum, limits and colours.
  template <typename Each> EG3D_DEVICE void forward(const Each& each) {
    trace(each);
    each([&](int lane) {
      if (lane == 0) deliver_depth();
      if (r.features) composite(lane);
    });
    if (!r.features) return;
    each([&](int lane) {
      float sum = 0.0f;
      for (int k = 0; k < WARP; ++k) sum += s.parts[k * PITCH + lane];
      if (lane < r.colors) r.features[i * r.colors + lane] = sum;
    });
  }

  // Adds the ray's gradients; those of the decoder to `sums`, laid out as a Net with the density's bias behind it.
  template <typename Each> EG3D_DEVICE void backward(const Each& each, const RenderGradients& g, float* sums) {
    trace(each);
    each([&](int lane) {
      for (int k = 0; k < 6; ++k) s.parts[lane * PITCH + k] = 0.0f;
      for (int k = lane; k < num; k += WARP) s.d_rows[k] = g.features ? d_share(k, g) : 0.0f;
    });
    each([&](int lane) {
      if (lane == 0) d_densities(g);
    });
    for (int first = 0; first < num; first += WARP) {
      each([&](int lane) { sample(lane, first + lane, g, sums != nullptr); });
      if (sums) each([&](int lane) { collect(lane, first, sums); });
    }
    if (!g.origins) return;
    each([&](int lane) {
      float sum = 0.0f;
      for (int k = 0; k < WARP && lane < 6; ++k) sum += s.parts[k * PITCH + lane];
      if (lane < 3) g.origins[3 * i + lane] = sum * r.scale;
      else if (lane < 6) g.directions[3 * i + lane - 3] = sum * r.scale;
    });
  }

 private:
  EG3D_DEVICE Intervals intervals() const { return {s.passed, s.transmittance, s.weights}; }

  // Depths, densities and shares of all samples; rows are coarse samples, then fine ones.
  template <typename Each> EG3D_DEVICE void trace(const Each& each) {
    const int coarse = r.num_coarse;
    each([&](int lane) {
      for (int k = lane; k < coarse; k += WARP) s.depths[k] = r.coarse[i * coarse + k], s.densities[k] = density(k);
    });
    if (r.num_fine > 0) {
      if (!r.fine_is_depth) {
        each([&](int lane) { pass(s.depths, s.densities, coarse, lane, WARP, intervals()); });
        each([&](int lane) {
          if (lane == 0) accumulate(coarse, intervals()), distribute(s.weights, coarse, s.sorted_depths);
        });
      }
      each([&](int lane) {
        for (int k = coarse + lane; k < num; k += WARP) {
          const float given = r.fine[i * r.num_fine + k - coarse];
          s.depths[k] = r.fine_is_depth ? given : fine_depth(s.depths, s.sorted_depths, coarse, given);
          s.densities[k] = density(k);
        }
      });
      each([&](int lane) {
        if (lane == 0) sort_samples(s.depths, coarse, num, s.room, s.order);
      });
    } else {
      each([&](int lane) {
        for (int k = lane; k < num; k += WARP) s.order[k] = k;
      });
    }
    each([&](int lane) {
      for (int k = lane; k < num; k += WARP)
        s.sorted_depths[k] = s.depths[s.order[k]], s.sorted_densities[k] = s.densities[s.order[k]];
    });
    each([&](int lane) { pass(s.sorted_depths, s.sorted_densities, num, lane, WARP, intervals()); });
    each([&](int lane) {
      if (lane == 0) *total() = accumulate(num, intervals());
    });
    each([&](int lane) {
      for (int k = lane; k < num; k += WARP) s.shares[s.order[k]] = share(s.weights, k, num);
    });
  }

  EG3D_DEVICE float* total() const { return s.weights + num; }  // beyond the num - 1 weights

  EG3D_DEVICE void deliver_depth() {
    r.depth[i] = mean_depth(s.sorted_depths, s.weights, num, *total());
    r.total[i] = *total();
    float low = s.depths[0], high = low;
    for (int k = 1; k < num; ++k) low = fminf(low, s.depths[k]), high = fmaxf(high, s.depths[k]);
    r.limits[2 * i] = low, r.limits[2 * i + 1] = high;
  }

  EG3D_DEVICE Footprint footprint(int row, int plane) const {
    const int ax = r.axes[2 * plane], ay = r.axes[2 * plane + 1];
    const float t = s.depths[row];
    const float u = (r.origins[3 * i + ax] + t * r.directions[3 * i + ax]) * r.scale;
    const float v = (r.origins[3 * i + ay] + t * r.directions[3 * i + ay]) * r.scale;
    Footprint f;
    f.x = neighbours<float, int>(u, r.width), f.y = neighbours<float, int>(v, r.height);
    f.offset[0] = (int64_t(plane) * r.height + f.y.first) * r.row + f.x.first * MOST;
    f.offset[1] = f.offset[0] + int64_t(f.x.step) * MOST;
    f.offset[2] = f.offset[0] + int64_t(f.y.step) * r.row;
    f.offset[3] = f.offset[2] + int64_t(f.x.step) * MOST;
    const float third = 1.0f / 3.0f;
    f.weight[0] = f.x.low * f.y.low * third, f.weight[1] = f.x.high * f.y.low * third;
    f.weight[2] = f.x.low * f.y.high * third, f.weight[3] = f.x.high * f.y.high * third;
    return f;
  }

  // Mean feature of a row over the planes.
  EG3D_DEVICE void gather(int row, float (&x)[MOST]) const {
    for (int c = 0; c < MOST; ++c) x[c] = 0.0f;
    for (int plane = 0; plane < 3; ++plane) {
      const Footprint f = footprint(row, plane);
      for (int j = 0; j < 4; ++j) {
        const T* texel = planes + f.offset[j];
        for (int c = 0; c < MOST; c += 4) {
          float four[4];
          read_four(texel + c, four);
          for (int e = 0; e < 4; ++e) x[c + e] += f.weight[j] * four[e];
        }
      }
    }
  }

  // Value of a hidden unit.
  EG3D_DEVICE float hidden(const float (&x)[MOST], int unit) const {
    float sum = net.in_b[unit];
    for (int c = 0; c < MOST; ++c) sum += net.in[unit * MOST + c] * x[c];
    return softplus(sum);
  }

  EG3D_DEVICE float density(int row) const {
    float x[MOST], sum = r.b2[0];
    gather(row, x);
    for (int unit = 0; unit < r.hidden; ++unit) sum += net.density[unit] * hidden(x, unit);
    return sum;
  }

  // Colours of a feature, before the sigmoid.
  EG3D_DEVICE void colors(const float (&x)[MOST], float (&out)[MOST]) const {
    for (int d = 0; d < MOST; ++d) out[d] = net.color_b[d];
    for (int unit = 0; unit < r.hidden; ++unit) {
      const float value = hidden(x, unit);
      for (int d = 0; d < MOST; ++d) out[d] += net.color[unit * MOST + d] * value;
    }
  }

  // The lane's part of the composited colours.
  EG3D_DEVICE void composite(int lane) {
    float x[MOST], out[MOST], sums[MOST] = {};
    for (int k = lane; k < num; k += WARP) {
      if (fabsf(s.shares[k]) <= NEGLIGIBLE) continue;
      gather(k, x);
      colors(x, out);
      for (int d = 0; d < MOST; ++d) sums[d] += s.shares[k] * (sigmoid(out[d]) * (1.0f + 2.0f * WIDEN) - WIDEN);
    }
    for (int d = 0; d < MOST; ++d) s.parts[lane * PITCH + d] = sums[d];
  }

  EG3D_DEVICE float d_share(int row, const RenderGradients& g) const {
    float x[MOST], out[MOST], sum = 0.0f;
    gather(row, x);
    colors(x, out);
    for (int d = 0; d < MOST; ++d) {
      const float up = d < r.colors ? g.features[i * r.colors + d] : 0.0f;
      sum += up * (sigmoid(out[d]) * (1.0f + 2.0f * WIDEN) - WIDEN);
    }
    return sum;
  }

  // From the shares' gradients in d_rows to the densities', there too.
  EG3D_DEVICE void d_densities(const RenderGradients& g) {
    const float depth = mean_depth(s.sorted_depths, s.weights, num, *total());
    const float d_depth = *total() > 0.0f ? g.depth[i] / *total() : 0.0f;
    for (int k = 0; k + 1 < num; ++k) {
      const float d_shares = s.d_rows[s.order[k]] + s.d_rows[s.order[k + 1]];
      const float middle = (s.sorted_depths[k] + s.sorted_depths[k + 1]) * 0.5f;
      s.d_weights[k] = d_shares * 0.5f + g.total[i] + (d_depth != 0.0f ? d_depth * (middle - depth) : 0.0f);
    }
    march_backward(s.sorted_depths, s.sorted_densities, num, intervals(), s.d_weights, s.d_sorted);
    for (int k = 0; k < num; ++k) s.d_rows[s.order[k]] = s.d_sorted[k];
  }

  // Gradients by one sample: to planes and ray; where the decoder's are wanted, what they are made of, by lane.
  EG3D_DEVICE void sample(int lane, int row, const RenderGradients& g, bool of_decoder) {
    float x[MOST], d_out[MOST], d_x[MOST] = {};
    const bool real = row < num;
    if (real) gather(row, x);
    else
      for (int c = 0; c < MOST; ++c) x[c] = 0.0f;
    d_colors(x, row, real, g, d_out);
    for (int unit = 0; unit < r.hidden; ++unit) {
      const float value = hidden(x, unit);
      float change = real ? s.d_rows[row] * net.density[unit] : 0.0f;
      for (int d = 0; d < MOST; ++d) change += net.color[unit * MOST + d] * d_out[d];
      change *= 1.0f - exponential(-value);  // the slope of softplus
      for (int c = 0; c < MOST; ++c) d_x[c] += net.in[unit * MOST + c] * change;
      if (of_decoder) s.hidden[unit * WARP + lane] = real ? value : 0.0f, s.d_hidden[unit * WARP + lane] = change;
    }
    if (of_decoder)
      for (int c = 0; c < MOST; ++c) s.features[lane * PITCH + c] = x[c], s.colors[lane * PITCH + c] = d_out[c];
    if (real && (g.planes || g.origins)) spread(lane, row, d_x, g);
  }

  // Gradients of the colours before the sigmoid.
  EG3D_DEVICE void d_colors(const float (&x)[MOST], int row, bool real, const RenderGradients& g,
                            float (&d_out)[MOST]) const {
    for (int d = 0; d < MOST; ++d) d_out[d] = 0.0f;
    if (!real || !g.features) return;
    float out[MOST];
    colors(x, out);
    for (int d = 0; d < MOST; ++d) {
      const float slope = sigmoid(out[d]) * (1.0f - sigmoid(out[d])) * (1.0f + 2.0f * WIDEN);
      d_out[d] = d < r.colors ? g.features[i * r.colors + d] * s.shares[row] * slope : 0.0f;
    }
  }

  // From a feature's gradient to the planes and, through the place of the sample, to the ray.
  EG3D_DEVICE void spread(int lane, int row, const float (&d_x)[MOST], const RenderGradients& g) {
    for (int plane = 0; plane < 3; ++plane) {
      const Footprint f = footprint(row, plane);
      if (g.planes)
        for (int j = 0; j < 4; ++j)
          for (int c = 0; c < MOST && f.weight[j] != 0.0f; ++c)
            add(g.planes + item + f.offset[j] + c, f.weight[j] * d_x[c]);
      if (g.origins) move(lane, row, plane, f, d_x);
    }
  }

  EG3D_DEVICE void move(int lane, int row, int plane, const Footprint& f, const float (&d_x)[MOST]) {
    float dot[4] = {};
    for (int j = 0; j < 4; ++j)
      for (int c = 0; c < MOST; c += 4) {
        float four[4];
        read_four(planes + f.offset[j] + c, four);
        for (int e = 0; e < 4; ++e) dot[j] += d_x[c + e] * four[e] * (1.0f / 3.0f);
      }
    const float along_x = (f.x.low_slope * dot[0] + f.x.high_slope * dot[1]) * f.y.low +
        (f.x.low_slope * dot[2] + f.x.high_slope * dot[3]) * f.y.high;
    const float along_y = (f.x.low * dot[0] + f.x.high * dot[1]) * f.y.low_slope +
        (f.x.low * dot[2] + f.x.high * dot[3]) * f.y.high_slope;
    float* to = s.parts + lane * PITCH;
    to[r.axes[2 * plane]] += along_x, to[r.axes[2 * plane + 1]] += along_y;
    to[3 + r.axes[2 * plane]] += along_x * s.depths[row], to[3 + r.axes[2 * plane + 1]] += along_y * s.depths[row];
  }

  // Gradients of the decoder by the samples of all lanes; each lane takes a column of the matrices.
  EG3D_DEVICE void collect(int lane, int first, float* sums) {
    const Net to(sums, r.hidden);
    for (int unit = 0; unit < r.hidden; ++unit) {
      float in = 0.0f, color = 0.0f;
      for (int k = 0; k < WARP; ++k) {
        in += s.d_hidden[unit * WARP + k] * s.features[k * PITCH + lane];
        color += s.hidden[unit * WARP + k] * s.colors[k * PITCH + lane];
      }
      add(to.in + unit * MOST + lane, in);
      add(to.color + unit * MOST + lane, color);
    }
    for (int unit = lane; unit < r.hidden; unit += WARP) {
      float in_b = 0.0f, density = 0.0f;
      for (int k = 0; k < WARP; ++k) {
        in_b += s.d_hidden[unit * WARP + k];
        density += first + k < num ? s.hidden[unit * WARP + k] * s.d_rows[first + k] : 0.0f;
      }
      add(to.in_b + unit, in_b);
      add(to.density + unit, density);
    }
    float color_b = 0.0f, density_b = 0.0f;
    for (int k = 0; k < WARP; ++k) {
      color_b += s.colors[k * PITCH + lane];
      density_b += first + k < num ? s.d_rows[first + k] : 0.0f;
    }
    add(to.color_b + lane, color_b);
    if (lane == 0) add(sums + Net::size(r.hidden), density_b);
  }

  const Render& r;
  const Net& net;
  const Scratch& s;
  const int64_t i;
  const int num;
  const int64_t item;  // the first number of the item's planes
  const T* planes;
};

}  // namespace eg3d
