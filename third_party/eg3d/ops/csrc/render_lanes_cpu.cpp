// The GPU's program on a CPU, a warp being a loop: slow, and there for tests of what a GPU runs. The last lane goes
// first, so that a lane that relies on lower ones within a phase is found out.
#include <vector>

#include "ray_by_lanes.h"

namespace eg3d {
namespace {

struct Loop {
  template <typename Phase> void operator()(const Phase& phase) const {
    for (int lane = WARP - 1; lane >= 0; --lane) phase(lane);
  }
};

std::vector<float> net_numbers(const Render& r) {
  std::vector<float> numbers(Net::size(r.hidden));
  for (size_t k = 0; k < numbers.size(); ++k) numbers[k] = net_number(r, int64_t(k));
  return numbers;
}

}  // namespace

void render_lanes(const Render& r) {
  std::vector<float> numbers = net_numbers(r), room(Scratch::size(r.num_coarse + r.num_fine, r.hidden, false, false));
  const Net net(numbers.data(), r.hidden);
  const Scratch scratch(room.data(), r.num_coarse + r.num_fine, r.hidden);
  for (int64_t i = 0; i < r.batch * r.rays; ++i) RayByLanes<float>(r, net, scratch, i).forward(Loop());
}

void render_backward_lanes(const Render& r, const RenderGradients& g) {
  std::vector<float> numbers = net_numbers(r), room(Scratch::size(r.num_coarse + r.num_fine, r.hidden, true, true));
  std::vector<float> sums(Net::size(r.hidden) + 1);
  const Net net(numbers.data(), r.hidden);
  const Scratch scratch(room.data(), r.num_coarse + r.num_fine, r.hidden);
  for (int64_t i = 0; i < r.batch * r.rays; ++i)
    RayByLanes<float>(r, net, scratch, i).backward(Loop(), g, g.w1 ? sums.data() : nullptr);
  if (!g.w1) return;
  for (int64_t k = 0; k < Net::size(r.hidden); ++k)
    if (float* to = net_gradient(r, g, k)) *to += sums[k];
  *g.b2 += sums.back();
}

}  // namespace eg3d
