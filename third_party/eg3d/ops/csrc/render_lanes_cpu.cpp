// The GPU's program on a CPU: slow, and there for tests of what a GPU runs. Rays in turns take the lanes up and down.
#include <vector>

#include "ray_by_lanes.h"

namespace eg3d {
namespace {

// A block of one warp, which goes through all rays.
template <typename Ray> void for_each_ray(const Render& r, bool gradients, bool of_decoder, const Ray& work) {
  std::vector<float> numbers(Net::size(r.hidden)), room(Shared(r, gradients, of_decoder, false).scratch);
  for (size_t k = 0; k < numbers.size(); ++k) numbers[k] = net_number(r, int64_t(k));
  const Net net(numbers.data(), r.hidden);
  const Scratch scratch(room.data(), r.num_coarse + r.num_fine, of_decoder);
  for (int64_t i = 0; i < r.batch * r.rays; ++i) {
    const Warp warp{i % 2 == 1};
    work(RayByLanes<float>(r, net, scratch, warp, i));
  }
}

}  // namespace

void render_lanes(const Render& r) {
  for_each_ray(r, false, false, [](const RayByLanes<float>& ray) { ray.forward(); });
}

void render_backward_lanes(const Render& r, const RenderGradients& g) {
  std::vector<float> sums(Net::size(r.hidden) + 1);
  for_each_ray(r, true, g.w1, [&](const RayByLanes<float>& ray) { ray.backward(g, sums.data()); });
  for (size_t k = 0; k < sums.size() && g.w1 && !g.whole_net.most; ++k)
    if (float* to = net_gradient(r, g, int64_t(k))) *to += sums[k];
}

void read_whole_sums_lanes(const Render& r, const RenderGradients& g) {
  for (int64_t k = 0; k < num_whole_sums(r, g); ++k) read_whole_sum(r, g, k);
}

int64_t num_whole_sums_of_decoder(const Render& r) { return Net::size(r.hidden) + 1; }

}  // namespace eg3d
