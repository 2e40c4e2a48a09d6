// The renderer on a CPU. A ray's samples are the rows of small matrix products that stay in the nearest caches; nothing
// is kept per sample beyond the ray in work. Each thread takes a fixed range of rays, so that a fixed number of threads
// gives fixed results.
#include "render.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <vector>

#include "matrix.h"
#include "ray.h"

namespace eg3d {
namespace {

// Rays are taken in tiles, column by column, since rays above each other share the texels of the planes x and z span.
constexpr int64_t TILE_WIDTH = 4, TILE_HEIGHT = 8;
constexpr int BLOCK = 24;                 // rows that go through all steps before the next, in the nearest cache
constexpr int AHEAD = 3;                  // rows between asking for memory and using it
constexpr int64_t MAX_PARTITIONS = 16;    // each adds to gradients of its own, up to the size of an item's planes
constexpr float NEGLIGIBLE = 1e-8f;       // samples of a smaller share of their ray are not given colours

constexpr int64_t padded(int64_t n) { return (n + 31) / 32 * 32; }  // whole vectors, Wide ones too

// Zeroed memory on a cache line's boundary.
class Floats {
 public:
  explicit Floats(int64_t n) : memory_(static_cast<float*>(::operator new(padded(n + 1) * 4, std::align_val_t(64)))) {
    std::fill_n(memory_.get(), padded(n + 1), 0.0f);
  }
  operator float*() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  std::unique_ptr<float, Free> memory_;
};

// The decoder's weights in the layouts of the products, padded by zeros to whole vectors.
struct Decoder {
  int channels, hidden, colors;  // the last two padded
  Floats in_t, in_b, in, density, color_t, color_b, color, zeros;
  float density_b;

  explicit Decoder(const Render& r)
      : channels(r.channels), hidden(int(padded(r.hidden))), colors(int(padded(r.colors))),
        in_t(int64_t(channels) * hidden), in_b(hidden), in(int64_t(hidden) * channels), density(hidden),
        color_t(int64_t(hidden) * colors), color_b(colors), color(int64_t(colors) * hidden),
        zeros(std::max({channels, hidden, colors})), density_b(r.b2[0]) {
    for (int h = 0; h < r.hidden; ++h) {
      in_b[h] = r.b1[h];
      density[h] = r.w2[h];
      for (int c = 0; c < r.channels; ++c) in_t[c * hidden + h] = in[h * channels + c] = r.w1[h * r.channels + c];
    }
    for (int d = 0; d < r.colors; ++d) {
      color_b[d] = r.b2[1 + d];
      for (int h = 0; h < r.hidden; ++h)
        color_t[h * colors + d] = color[d * hidden + h] = r.w2[(1 + d) * r.hidden + h];
    }
  }
};

// The samples of one ray: coarse ones in rows [0, num_coarse), then fine ones.
struct Ray {
  const Render& r;
  const Decoder& net;
  const float* planes;  // of the ray's item
  int num, stride;      // rows; room for a row of numbers of them, with a vector's overhang
  Floats x, h, out;                                    // features, hidden values, colours before the sigmoid: by row
  Floats depths, densities, points, weights_of_texels;  // by row
  Floats sorted_depths, sorted_densities, passed, transmittance, weights, shares, cdf;
  std::vector<int> texels, order, room, rows;
  float total = 0.0f;

  Ray(const Render& render, const Decoder& decoder)
      : r(render), net(decoder), planes(nullptr), num(r.num_coarse + r.num_fine),
        stride(int(padded(num + WIDE))), x(int64_t(num) * net.channels),
        h(int64_t(num) * net.hidden), out(int64_t(num) * net.colors), depths(stride), densities(stride),
        points(3 * stride), weights_of_texels(12 * stride), sorted_depths(stride), sorted_densities(stride),
        passed(stride), transmittance(stride),
        weights(stride), shares(stride), cdf(stride), texels(9 * stride), order(num), room(num), rows(num) {}

  Intervals intervals() const { return {passed, transmittance, weights}; }

  // Everything but colours: depths, densities and shares of ray i, counted over the batch.
  void trace(int64_t i) {
    planes = static_cast<const float*>(r.planes) + i / r.rays * 3 * r.height * r.width * int64_t(r.channels);
    std::copy_n(r.coarse + i * r.num_coarse, r.num_coarse, static_cast<float*>(depths));
    evaluate(i, 0, r.num_coarse);
    if (r.num_fine > 0) {
      const float* fine = r.fine + i * r.num_fine;
      if (r.fine_is_depth) {
        std::copy_n(fine, r.num_fine, depths + r.num_coarse);
      } else {
        march(depths, densities, r.num_coarse);
        distribute(weights, r.num_coarse, cdf);
        for (int k = 0; k < r.num_fine; ++k) depths[r.num_coarse + k] = fine_depth(depths, cdf, r.num_coarse, fine[k]);
      }
      evaluate(i, r.num_coarse, num);
      sort_samples(depths, r.num_coarse, num, room.data(), order.data());
    } else {
      for (int k = 0; k < num; ++k) order[k] = k;
    }
    for (int k = 0; k < num; ++k) sorted_depths[k] = depths[order[k]], sorted_densities[k] = densities[order[k]];
    total = march(sorted_depths, sorted_densities, num);
    for (int k = 0; k < num; ++k) shares[order[k]] = share(weights, k, num);
  }

  // Weights of the intervals between samples that stand in order; their sum.
  float march(const float* at, const float* density, int count) const {
    pass(at, density, count, 0, WIDE, intervals());
    return accumulate(count, intervals());
  }

  // Features, hidden values and densities of some rows.
  void evaluate(int64_t i, int begin, int end) {
    const float *o = r.origins + 3 * i, *d = r.directions + 3 * i;
    for (int axis = 0; axis < 3; ++axis)
      for (int k = begin; k < end; ++k) points[axis * stride + k] = (o[axis] + depths[k] * d[axis]) * r.scale;
    for (int plane = 0; plane < 3; ++plane) locate(plane, begin, end);
    for (int k = begin; k < end; k += BLOCK) {
      const int stop = std::min(k + BLOCK, end);
      for (int j = k; j < stop; ++j) gather(j);
      multiply<false>({x + k * net.channels, net.channels, 1, net.in_t, net.hidden, h + k * net.hidden, net.hidden,
                       stop - k, net.hidden, r.channels, net.in_b});
      for (int j = k; j < stop; ++j) activate(j);
    }
  }

  // Texels and weights of all rows on one plane.
  void locate(int plane, int begin, int end) {
    const float *u = points + r.axes[2 * plane] * stride, *v = points + r.axes[2 * plane + 1] * stride;
    int* t = texels.data() + plane * 3 * stride;
    float* w = weights_of_texels + plane * 4 * stride;
    const int start = plane * r.height * r.width, row = r.width * r.channels;
    for (int k = begin; k < end; k += LANES) {  // the last vector reaches into rows that come later, or into padding
      const auto a = neighbours<Lanes, Integers>(load(u + k), r.width);
      const auto b = neighbours<Lanes, Integers>(load(v + k), r.height);
      store(t + k, (b.first * r.width + a.first + start) * r.channels);
      store(t + stride + k, a.step * r.channels);
      store(t + 2 * stride + k, b.step * row);
      const Lanes low = b.low * (1.0f / 3.0f), high = b.high * (1.0f / 3.0f);
      store(w + k, a.low * low);
      store(w + stride + k, a.high * low);
      store(w + 2 * stride + k, a.low * high);
      store(w + 3 * stride + k, a.high * high);
    }
  }

  // Offsets of the four texels of row k on a plane, in numbers from the planes' beginning.
  void corners(int plane, int k, int* offsets) const {
    const int* t = texels.data() + plane * 3 * stride + k;
    const int first = t[0], step_x = t[stride], step_y = t[2 * stride];
    offsets[0] = first, offsets[1] = first + step_x, offsets[2] = first + step_y, offsets[3] = first + step_x + step_y;
  }

  // Weight of corner j over three: the mean of the planes.
  float corner_weight(int plane, int j, int k) const { return weights_of_texels[(4 * plane + j) * stride + k]; }

  // Mean feature of row k over the planes.
  void gather(int k) {
    int offsets[12];
    for (int plane = 0; plane < 3; ++plane) corners(plane, k, offsets + 4 * plane);
    const float* w = weights_of_texels + k;
    float* to = x + k * net.channels;
    for (int c = 0; c < r.channels; c += 4 * LANES) {
      const int width = r.channels - c >= 4 * LANES ? 4 : (r.channels - c) / LANES;
      if (width == 4) gather_block<4>(offsets, w, c, to + c);
      else
        for (int v = 0; v < width; ++v) gather_block<1>(offsets, w, c + v * LANES, to + c + v * LANES);
    }
  }

  template <int VECTORS> void gather_block(const int* offsets, const float* w, int c, float* to) const {
    Lanes sums[VECTORS] = {};
    for (int j = 0; j < 12; ++j)
      for (int v = 0; v < VECTORS; ++v) sums[v] += load(planes + offsets[j] + c + v * LANES) * w[j * stride];
    for (int v = 0; v < VECTORS; ++v) store(to + v * LANES, sums[v]);
  }

  // Softplus of the hidden values of row k, and its density.
  void activate(int k) {
    float* row = h + k * net.hidden;
    Wide sums = Wide{};
    for (int j = 0; j < net.hidden; j += WIDE) {
      const Wide value = softplus(load<Wide>(row + j));
      store(row + j, value);
      sums += value * load<Wide>(net.density + j);
    }
    densities[k] = sum(sums) + net.density_b;
  }

  // Colours before the sigmoid of the rows in `rows`, into consecutive rows of `out`; x is room.
  void decode(int count) {
    multiply<false>({h, net.hidden, 1, net.color_t, net.colors, out, net.colors, count, net.colors, r.hidden,
                     net.color_b});
  }

  // Rows whose share counts, moved together: their number. Their order in `rows`; h is rearranged.
  int keep_visible() {
    int count = 0;
    for (int k = 0; k < num; ++k) {
      if (std::fabs(shares[k]) <= NEGLIGIBLE) continue;
      if (count < k) std::copy_n(h + k * net.hidden, net.hidden, h + count * net.hidden);
      rows[count++] = k;
    }
    return count;
  }
};

// Colours reach slightly beyond [0, 1] (decoder.py).
constexpr float WIDEN = 0.001f;

void composite(Ray& ray, float* features) {
  const int count = ray.keep_visible(), colors = ray.net.colors;
  ray.decode(count);
  float* sums = ray.x;  // its features have been used
  for (int d = 0; d < colors; d += WIDE) {
    Wide parts[4] = {};  // four sums lose less to rounding than one, and do not wait for each other
    for (int k = 0; k < count; ++k) {
      const Wide color = sigmoid(load<Wide>(ray.out + k * colors + d)) * (1.0f + 2.0f * WIDEN) - WIDEN;
      parts[k % 4] += color * ray.shares[ray.rows[k]];
    }
    store(sums + d, (parts[0] + parts[1]) + (parts[2] + parts[3]));
  }
  std::copy_n(sums, ray.r.colors, features);
}

// Ray number `n` of an item, tile by tile, if the rays of an item are a square image; else as they stand.
class Order {
 public:
  explicit Order(int64_t rays) : order_(rays) {
    const int64_t side = std::llround(std::sqrt(double(rays)));
    int64_t n = 0;
    if (side * side != rays) {
      for (; n < rays; ++n) order_[n] = n;
      return;
    }
    for (int64_t y = 0; y < side; y += TILE_HEIGHT)
      for (int64_t x = 0; x < side; x += TILE_WIDTH)
        for (int64_t j = x; j < std::min(x + TILE_WIDTH, side); ++j)
          for (int64_t i = y; i < std::min(y + TILE_HEIGHT, side); ++i) order_[n++] = i * side + j;
  }
  int64_t operator[](int64_t n) const { return order_[n]; }

 private:
  std::vector<int64_t> order_;
};

// Calls work(partition, begin, end) for equal parts of [0, total), each by one thread.
template <typename Work> void by_partition(int64_t total, int64_t partitions, const Work& work) {
  at::parallel_for(0, partitions, 1, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) work(p, total * p / partitions, total * (p + 1) / partitions);
  });
}

constexpr int64_t PIXELS = 16;  // a cache line of an image's row

// Calls work(image, first, last) for runs of up to PIXELS pixels of every image.
template <typename Work> void by_line(int64_t images, int64_t pixels, const Work& work) {
  const int64_t lines = (pixels + PIXELS - 1) / PIXELS;
  at::parallel_for(0, images * lines, 64, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t first = k % lines * PIXELS;
      work(k / lines, first, std::min(first + PIXELS, pixels));
    }
  });
}

}  // namespace

void interleave_cpu(const float* from, float* to, int64_t images, int64_t channels, int64_t pixels, int64_t width) {
  by_line(images, pixels, [&](int64_t image, int64_t first, int64_t last) {
    const float* in = from + image * channels * pixels;
    float* out = to + image * pixels * width;
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t n = first; n < last; ++n) out[n * width + c] = in[c * pixels + n];
    for (int64_t n = first; n < last; ++n) std::fill(out + n * width + channels, out + (n + 1) * width, 0.0f);
  });
}

void separate_cpu(const float* from, float* to, int64_t images, int64_t channels, int64_t pixels, int64_t width) {
  by_line(images, pixels, [&](int64_t image, int64_t first, int64_t last) {
    const float* in = from + image * pixels * width;
    float* out = to + image * channels * pixels;
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t n = first; n < last; ++n) out[c * pixels + n] = in[n * width + c];
  });
}

void render_cpu(const Render& r) {
  const Decoder decoder(r);
  const Order order(r.rays);
  by_partition(r.batch * r.rays, at::get_num_threads(), [&](int64_t, int64_t begin, int64_t end) {
    Ray ray(r, decoder);
    for (int64_t n = begin; n < end; ++n) {
      const int64_t i = n / r.rays * r.rays + order[n % r.rays];
      ray.trace(i);
      r.depth[i] = mean_depth(ray.sorted_depths, ray.weights, ray.num, ray.total);
      r.total[i] = ray.total;
      const auto [low, high] = std::minmax_element(ray.depths + 0, ray.depths + ray.num);
      r.limits[2 * i] = *low, r.limits[2 * i + 1] = *high;
      if (r.features) composite(ray, r.features + i * r.colors);
    }
  });
}

namespace {

// What a thread works with, and adds up, in the backward pass.
struct Backward {
  const Render& r;
  const RenderGradients& g;
  Ray ray;
  const Decoder& net;
  Floats d_out, d_h, d_x, d_weights, d_sorted, d_densities, d_feature;
  Floats w1, b1, density, color, color_b;  // gradients of the decoder by one ray, in padded layouts
  double density_b = 0.0;
  std::vector<double> sums;                // of those by all rays, one after another: many rays, little rounding

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
    if (g.w1) weights(), collect();
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
        const Wide s = sigmoid(load<Wide>(ray.out + k * net.colors + d)), up = load<Wide>(d_feature + d);
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
    for (int64_t j = 0; j < int64_t(ray.num) * net.hidden; j += WIDE)
      store(d_h + j, load<Wide>(d_h + j) * (1.0f - exponential(-load<Wide>(ray.h + j))));
  }

  // Gradients of the second layer.
  void output_weights() {
    multiply<false>({d_densities, 1, 1, ray.h, net.hidden, density, net.hidden, 1, net.hidden, ray.num, net.zeros});
    for (int k = 0; k < ray.num; ++k) density_b += d_densities[k];
    if (!g.features) return;
    multiply<false>({d_out, 1, net.colors, ray.h, net.hidden, color, net.hidden, r.colors, net.hidden, ray.num,
                     net.zeros});
    add_rows(d_out, net.colors, color_b);
  }

  // Gradients of the first layer.
  void weights() {
    multiply<false>({d_h, 1, net.hidden, ray.x, net.channels, w1, net.channels, r.hidden, net.channels, ray.num,
                     net.zeros});
    add_rows(d_h, net.hidden, b1);
  }

  void add_rows(const float* rows, int columns, float* to) const {
    for (int j = 0; j < columns; j += LANES) {
      Lanes total = Lanes{};
      for (int k = 0; k < ray.num; ++k) total += load(rows + k * columns + j);
      store(to + j, total);
    }
  }

  // Adds one ray's gradients of the decoder to the sums.
  void collect() {
    double* to = sums.data();
    const auto take = [&](const float* from, int64_t n) {
      for (int64_t j = 0; j < n; ++j) to[j] += from[j];
      to += n;
    };
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
  void deliver() const {
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
  const int64_t partitions = std::min<int64_t>(at::get_num_threads(), MAX_PARTITIONS);
  const int64_t size = 3 * int64_t(r.height) * r.width * r.channels;
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
    at::parallel_for(0, size, 1 << 15, [&](int64_t begin, int64_t end) {
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
