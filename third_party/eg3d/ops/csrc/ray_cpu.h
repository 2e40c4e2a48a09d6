// One ray on a CPU: its samples are the rows of small matrix products that stay in the nearest caches.
#pragma once

#include "render.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <vector>

#include "matrix.h"
#include "parallel.h"
#include "ray.h"

namespace eg3d {

// Rays are taken in tiles, column by column, since rays above each other share the texels of the planes x and z span.
constexpr int64_t TILE_WIDTH = 4, TILE_HEIGHT = 8;
constexpr int BLOCK = 24;  // rows that go through all steps before the next, in the nearest cache

constexpr int64_t padded(int64_t n) { return (n + 31) / 32 * 32; }  // whole vectors, Wide ones too

// Zeroed memory on a cache line's boundary.
class Floats {
 public:
  explicit Floats(int64_t n) : memory_(static_cast<float*>(::operator new(padded(n + 1) * 4, std::align_val_t(64)))) {
    use_large_pages(memory_.get(), padded(n + 1) * 4);
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
        stride(int(padded(num + WIDE))), x(std::max<int64_t>(int64_t(num) * net.channels, net.colors)),
        h(int64_t(num) * net.hidden), out(int64_t(num) * net.colors), depths(stride), densities(stride),
        points(3 * stride), weights_of_texels(12 * stride), sorted_depths(stride), sorted_densities(stride),
        passed(stride), transmittance(stride),
        weights(stride), shares(stride), cdf(stride), texels(9 * stride), order(num), room(num), rows(num) {}

  Intervals intervals() const { return {passed, transmittance, weights}; }

  // Everything but colours: depths, densities and shares of ray i, counted over the batch.
  void trace(int64_t i) {
    planes = static_cast<const float*>(r.planes) + i / r.rays * 3 * r.height * int64_t(r.row);
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
      activate(k, stop);
    }
  }

  // Texels and weights of all rows on one plane.
  void locate(int plane, int begin, int end) {
    const float *u = points + r.axes[2 * plane] * stride, *v = points + r.axes[2 * plane + 1] * stride;
    int* t = texels.data() + plane * 3 * stride;
    float* w = weights_of_texels + plane * 4 * stride;
    const int start = plane * r.height * r.row;
    for (int k = begin; k < end; k += LANES) {  // the last vector reaches into rows that come later, or into padding
      const auto a = neighbours<Lanes, Integers>(load(u + k), r.width);
      const auto b = neighbours<Lanes, Integers>(load(v + k), r.height);
      store(t + k, b.first * r.row + a.first * r.channels + start);
      store(t + stride + k, a.step * r.channels);
      store(t + 2 * stride + k, b.step * r.row);
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

  // Softplus of the hidden values of rows [begin, end), and their densities.
  void activate(int begin, int end) {
    float* values = h + begin * net.hidden;
    along(int64_t(end - begin) * net.hidden, [&](auto kind, int64_t j) {
      store(values + j, softplus(load<decltype(kind)>(values + j)));
    });
    for (int k = begin; k < end; ++k) {
      Wide sums = Wide{};
      for (int j = 0; j < net.hidden; j += WIDE)
        sums += load<Wide>(h + k * net.hidden + j) * load<Wide>(net.density + j);
      densities[k] = sum(sums) + net.density_b;
    }
  }

  // Colours of the first `count` rows of h, before they are widened, into rows of `out`.
  void decode(int count) {
    multiply<false>({h, net.hidden, 1, net.color_t, net.colors, out, net.colors, count, net.colors, r.hidden,
                     net.color_b});
    along(int64_t(count) * net.colors, [&](auto kind, int64_t j) {
      store(out + j, sigmoid(load<decltype(kind)>(out + j)));
    });
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
  parallel_for(0, partitions, 1, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) work(p, total * p / partitions, total * (p + 1) / partitions);
  });
}

}  // namespace eg3d
