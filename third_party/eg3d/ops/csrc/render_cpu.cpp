// The renderer on a CPU. Nothing is kept per sample beyond the ray in work. Each thread takes a fixed range of rays, so
// that a fixed number of threads gives fixed results.
#include "ray_cpu.h"

namespace eg3d {
namespace {

void composite(Ray& ray, float* features) {
  const int count = ray.keep_visible(), colors = ray.net.colors;
  ray.decode(count);
  float* sums = ray.x;  // room for a row of colours; its features have been used
  for (int d = 0; d < colors; d += WIDE) {
    Wide parts[4] = {};  // four sums lose less to rounding than one, and do not wait for each other
    for (int k = 0; k < count; ++k) {
      const Wide color = load<Wide>(ray.out + k * colors + d) * (1.0f + 2.0f * WIDEN) - WIDEN;
      parts[k % 4] += color * ray.shares[ray.rows[k]];
    }
    store(sums + d, (parts[0] + parts[1]) + (parts[2] + parts[3]));
  }
  std::copy_n(sums, ray.r.colors, features);
}

}  // namespace

void render_cpu(const Render& r) {
  const Decoder decoder(r);
  const Order order(r.rays);
  by_partition(r.batch * r.rays, num_threads(), [&](int64_t, int64_t begin, int64_t end) {
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

}  // namespace eg3d
