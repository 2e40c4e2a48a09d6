// The gradients of a render on a CPU: every ray is traced again, and its samples' gradients are added at once.
#include "ray_cpu.h"

namespace eg3d {
namespace {

constexpr int AHEAD = 3;                // rows between asking for memory and using it
constexpr int HELD = 96;                // samples whose gradients of the decoder are summed in float
constexpr int64_t MAX_PARTITIONS = 16;  // each adds to gradients of its own, up to the size of an item's planes

// What a thread works with, and adds up, in the backward pass.
struct Backward {
  const Render& r;
  const RenderGradients& g;
  Ray ray;
  const Decoder& net;
  Floats d_out, d_h, d_x, d_weights, d_sorted, d_densities, d_feature;
  Floats w1, b1, density, color, color_b;  // gradients of the decoder by `held` samples, in padded layouts
  int held = 0;
  double density_b = 0.0;
  std::vector<double> sums;                // of those by all samples: many of them, little rounding

  Backward(const Render& render, const RenderGradients& gradients, const Decoder& decoder)
      : r(render), g(gradients), ray(r, decoder), net(decoder), d_out(int64_t(ray.num) * net.colors),
        d_h(int64_t(ray.num) * net.hidden), d_x(int64_t(ray.num) * net.channels), d_weights(ray.stride),
        d_sorted(ray.stride), d_densities(ray.stride), d_feature(net.colors), w1(int64_t(net.hidden) * net.channels),
        b1(net.hidden), density(net.hidden), color(int64_t(net.colors) * net.hidden), color_b(net.colors),
        sums(g.w1 ? (net.channels + net.colors + 2) * int64_t(net.hidden) + net.colors : 0) {}

  // Adds the gradients of ray i; those of its item's planes to `d_planes`, unless null.
  void add(int64_t i, float* d_planes) {
    ray.trace(i);
    std::fill_n(static_cast<float*>(d_densities), ray.num, 0.0f);  // holds those of the shares first
    if (g.features) colors(i);
    densities(i);
    hidden();
    if (g.w1) weights();
    if (!d_planes && !g.origins) return;
    multiply<false>({d_h, net.hidden, 1, net.in, net.channels, d_x, net.channels, ray.num, net.channels, r.hidden,
                     net.zeros});
    if (d_planes)
      for (int k = 0; k < ray.num; ++k) {
        if (k + AHEAD < ray.num) expect(k + AHEAD, d_planes);
        scatter(k, d_planes);
      }
    if (g.origins) points(i);
  }

  // Gradients of the colours before the sigmoid; of the shares, into d_densities.
  void colors(int64_t i) {
    ray.decode(ray.num);
    std::copy_n(g.features + i * r.colors, r.colors, static_cast<float*>(d_feature));
    for (int k = 0; k < ray.num; ++k) {
      Wide d_share = Wide{};
      for (int d = 0; d < net.colors; d += WIDE) {
        const Wide s = load<Wide>(ray.out + k * net.colors + d), up = load<Wide>(d_feature + d);
        d_share += up * (s * (1.0f + 2.0f * WIDEN) - WIDEN);
        store(d_out + k * net.colors + d, up * (s * (1.0f - s)) * (ray.shares[k] * (1.0f + 2.0f * WIDEN)));
      }
      d_densities[k] = sum(d_share);
    }
  }

  // Gradients of the densities, from those of shares, depth and weight sum.
  void densities(int64_t i) {
    const float depth = mean_depth(ray.sorted_depths, ray.weights, ray.num, ray.total);
    const float d_total = g.total[i], d_depth = ray.total > 0.0f ? g.depth[i] / ray.total : 0.0f;
    for (int k = 0; k + 1 < ray.num; ++k) {
      const float d_shares = d_densities[ray.order[k]] + d_densities[ray.order[k + 1]];
      const float middle = (ray.sorted_depths[k] + ray.sorted_depths[k + 1]) * 0.5f;
      d_weights[k] = d_shares * 0.5f + d_total + (d_depth != 0.0f ? d_depth * (middle - depth) : 0.0f);
    }
    march_backward(ray.sorted_depths, ray.sorted_densities, ray.num, ray.intervals(), d_weights, d_sorted);
    for (int k = 0; k < ray.num; ++k) d_densities[ray.order[k]] = d_sorted[k];
  }

  // Gradients of the hidden values before the softplus, whose slope is 1 - exp(-value).
  void hidden() {
    for (int k = 0; k < ray.num; ++k)
      for (int j = 0; j < net.hidden; j += LANES)
        store(d_h + k * net.hidden + j, d_densities[k] * load(net.density + j));
    if (g.features)
      multiply<true>({d_out, net.colors, 1, net.color, net.hidden, d_h, net.hidden, ray.num, net.hidden, r.colors,
                      nullptr});
    if (g.w1) output_weights();
    along(int64_t(ray.num) * net.hidden, [&](auto kind, int64_t j) {
      using V = decltype(kind);
      store(d_h + j, load<V>(d_h + j) * (1.0f - exponential_below_zero(load<V>(ray.h + j))));
    });
  }

  // Gradients of the second layer.
  void output_weights() {
    multiply<true>({d_densities, 1, 1, ray.h, net.hidden, density, net.hidden, 1, net.hidden, ray.num, nullptr});
    for (int k = 0; k < ray.num; ++k) density_b += d_densities[k];
    if (!g.features) return;
    multiply<true>({d_out, 1, net.colors, ray.h, net.hidden, color, net.hidden, r.colors, net.hidden, ray.num,
                    nullptr});
    add_rows(d_out, net.colors, color_b);
  }

  // Gradients of the first layer.
  void weights() {
    multiply<true>({d_h, 1, net.hidden, ray.x, net.channels, w1, net.channels, r.hidden, net.channels, ray.num,
                    nullptr});
    add_rows(d_h, net.hidden, b1);
    held += ray.num;
    if (held >= HELD) collect();
  }

  void add_rows(const float* rows, int columns, float* to) const {
    for (int j = 0; j < columns; j += LANES) {
      Lanes total = load(to + j);
      for (int k = 0; k < ray.num; ++k) total += load(rows + k * columns + j);
      store(to + j, total);
    }
  }

  // Moves the gradients of the decoder to the sums.
  void collect() {
    double* to = sums.data();
    const auto take = [&](float* from, int64_t n) {
      for (int64_t j = 0; j < n; ++j) to[j] += from[j];
      std::fill_n(from, n, 0.0f);
      to += n;
    };
    held = 0;
    take(w1, int64_t(net.hidden) * net.channels);
    take(b1, net.hidden);
    take(density, net.hidden);
    take(color, int64_t(net.colors) * net.hidden);
    take(color_b, net.colors);
  }

  // Asks for the texels that row k will be added to, which seldom are in the nearest caches.
  void expect(int k, const float* d_planes) const {
    constexpr int LINE = 16;
    for (int plane = 0; plane < 3; ++plane) {
      int offsets[4];
      ray.corners(plane, k, offsets);
      for (int j = 0; j < 4; ++j)
        for (int c = 0; c < r.channels; c += LINE) __builtin_prefetch(d_planes + offsets[j] + c, 1);
    }
  }

  void scatter(int k, float* d_planes) const {
    const float* d = d_x + k * net.channels;
    for (int plane = 0; plane < 3; ++plane) {
      int offsets[4];
      ray.corners(plane, k, offsets);
      for (int j = 0; j < 4; ++j) {
        const float w = ray.corner_weight(plane, j, k);
        if (w == 0.0f) continue;
        float* to = d_planes + offsets[j];
        for (int c = 0; c < r.channels; c += LANES) store(to + c, load(to + c) + load(d + c) * w);
      }
    }
  }

  // Gradients of the ray's origin and direction, through where its samples lie.
  void points(int64_t i) {
    float d_origin[3] = {}, d_direction[3] = {};
    for (int k = 0; k < ray.num; ++k) {
      float d_point[3] = {};
      for (int plane = 0; plane < 3; ++plane) point(plane, k, d_point);
      for (int axis = 0; axis < 3; ++axis) {
        d_origin[axis] += d_point[axis];
        d_direction[axis] += d_point[axis] * ray.depths[k];
      }
    }
    for (int axis = 0; axis < 3; ++axis) {
      g.origins[3 * i + axis] = d_origin[axis] * r.scale;
      g.directions[3 * i + axis] = d_direction[axis] * r.scale;
    }
  }

  void point(int plane, int k, float* d_point) const {
    const int along_x = r.axes[2 * plane], along_y = r.axes[2 * plane + 1];
    const auto a = neighbours<float, int>(ray.points[along_x * ray.stride + k], r.width);
    const auto b = neighbours<float, int>(ray.points[along_y * ray.stride + k], r.height);
    int offsets[4];
    ray.corners(plane, k, offsets);
    float dot[4];
    for (int j = 0; j < 4; ++j) {
      Lanes sums = Lanes{};
      for (int c = 0; c < r.channels; c += LANES)
        sums += load(d_x + k * net.channels + c) * load(ray.planes + offsets[j] + c);
      dot[j] = sum(sums) * (1.0f / 3.0f);
    }
    d_point[along_x] += (a.low_slope * dot[0] + a.high_slope * dot[1]) * b.low +
        (a.low_slope * dot[2] + a.high_slope * dot[3]) * b.high;
    d_point[along_y] += (a.low * dot[0] + a.high * dot[1]) * b.low_slope +
        (a.low * dot[2] + a.high * dot[3]) * b.high_slope;
  }

  // Adds the sums to the results.
  void deliver() {
    collect();
    const double* from_w1 = sums.data();
    const double* from_b1 = from_w1 + int64_t(net.hidden) * net.channels;
    const double* from_density = from_b1 + net.hidden;
    const double* from_color = from_density + net.hidden;
    const double* from_color_b = from_color + int64_t(net.colors) * net.hidden;
    for (int h = 0; h < r.hidden; ++h) {
      g.b1[h] += float(from_b1[h]);
      g.w2[h] += float(from_density[h]);
      for (int c = 0; c < r.channels; ++c) g.w1[h * r.channels + c] += float(from_w1[h * net.channels + c]);
      for (int d = 0; d < r.colors; ++d) g.w2[(1 + d) * r.hidden + h] += float(from_color[d * net.hidden + h]);
    }
    g.b2[0] += float(density_b);
    for (int d = 0; d < r.colors; ++d) g.b2[1 + d] += float(from_color_b[d]);
  }
};

}  // namespace

// Items one after another: the first partition adds to an item's gradient itself, the others to memory of their own,
// which is then added in their order.
void render_backward_cpu(const Render& r, const RenderGradients& g) {
  const Decoder decoder(r);
  const Order order(r.rays);
  const int64_t partitions = std::min<int64_t>(num_threads(), MAX_PARTITIONS);
  const int64_t size = 3 * int64_t(r.height) * r.row;
  std::vector<std::unique_ptr<Backward>> work(partitions);
  std::vector<std::unique_ptr<Floats>> others(partitions);
  for (int64_t item = 0; item < r.batch; ++item) {
    float* d_planes = g.planes ? g.planes + item * size : nullptr;
    by_partition(r.rays, partitions, [&](int64_t p, int64_t begin, int64_t end) {
      if (!work[p]) work[p] = std::make_unique<Backward>(r, g, decoder);
      if (d_planes && p > 0) {
        if (!others[p]) others[p] = std::make_unique<Floats>(size);
        else std::fill_n(static_cast<float*>(*others[p]), size, 0.0f);
      }
      for (int64_t n = begin; n < end; ++n)
        work[p]->add(item * r.rays + order[n], d_planes && p > 0 ? static_cast<float*>(*others[p]) : d_planes);
    });
    if (!d_planes) continue;
    parallel_for(0, size, 1 << 15, [&](int64_t begin, int64_t end) {
      for (int64_t p = 1; p < partitions; ++p) {
        const float* other = *others[p];
        for (int64_t j = begin; j < end; ++j) d_planes[j] += other[j];
      }
    });
  }
  if (!g.w1) return;
  for (const auto& one : work)
    if (one) one->deliver();
}

}  // namespace eg3d
