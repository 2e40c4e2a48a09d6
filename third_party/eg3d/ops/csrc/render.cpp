// The renderer as PyTorch sees it; compiled once for the CPU and once for the GPU, like library.cpp.
#include "render.h"

#include <ATen/Context.h>

#include "operators.h"

#ifdef EG3D_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace eg3d {
namespace {

#ifdef EG3D_CUDA
constexpr auto DEVICE = c10::DeviceType::CUDA;

// The kernels read four channels at once.
void check_alignment(const at::Tensor& planes) {
  TORCH_CHECK(reinterpret_cast<uintptr_t>(planes.const_data_ptr()) % 16 == 0, "planes begin at an odd address");
}

Planes type_of(const at::Tensor& planes) {
  const auto dtype = planes.scalar_type();
  return dtype == c10::ScalarType::Half ? Planes::HALF
      : dtype == c10::ScalarType::BFloat16 ? Planes::BFLOAT16 : Planes::FLOAT;
}

void run(const Render& r, const at::Tensor& planes, bool) {
  check_alignment(planes);
  const c10::cuda::CUDAGuard guard(planes.device());
  render_cuda(r, type_of(planes), c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

void run_backward(const Render& r, const RenderGradients& g, const at::Tensor& planes, bool) {
  check_alignment(planes);
  const c10::cuda::CUDAGuard guard(planes.device());
  render_backward_cuda(r, g, type_of(planes), c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

void read_whole_sums(const Render& r, const RenderGradients& g, const at::Tensor& planes) {
  const c10::cuda::CUDAGuard guard(planes.device());
  read_whole_sums_cuda(r, g, c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}
#else
constexpr auto DEVICE = c10::DeviceType::CPU;

void run(const Render& r, const at::Tensor&, bool by_lanes) { by_lanes ? render_lanes(r) : render_cpu(r); }

void run_backward(const Render& r, const RenderGradients& g, const at::Tensor&, bool by_lanes) {
  by_lanes ? render_backward_lanes(r, g) : render_backward_cpu(r, g);
}

void read_whole_sums(const Render& r, const RenderGradients& g, const at::Tensor&) { read_whole_sums_lanes(r, g); }
#endif

constexpr bool ON_GPU = DEVICE == c10::DeviceType::CUDA;

// Tensors of a render; `fine` are uniforms, or depths where `fine_is_depth`. All contiguous float32.
struct Inputs {
  const at::Tensor &planes, &origins, &directions, &coarse, &fine, &w1, &b1, &w2, &b2;
};

void check_type(const at::Tensor& x, const at::Tensor& like, const char* name, bool any_float = false) {
  const auto dtype = x.scalar_type();
  const bool half = dtype == c10::ScalarType::Half || dtype == c10::ScalarType::BFloat16;
  const bool here = x.device().type() == DEVICE && x.device() == like.device();
  TORCH_CHECK(here && (dtype == c10::ScalarType::Float || (any_float && half)), name, " is ",
              dtype, " on ", x.device());
}

void check(const at::Tensor& x, const at::Tensor& like, at::IntArrayRef sizes, const char* name) {
  check_type(x, like, name);
  TORCH_CHECK(x.is_contiguous(), name, " is not contiguous");
  TORCH_CHECK(x.sizes() == sizes, name, " has shape ", x.sizes(), ", expected ", sizes);
}

// Numbers between rows of texels (B, 3, H, W, C), behind which there may be room.
int64_t row_of(const at::Tensor& texels) {
  const int64_t channels = texels.size(4);
  if (texels.is_contiguous()) return texels.size(3) * channels;
  const int64_t row = texels.stride(2), image = texels.size(2) * row;
  TORCH_CHECK(texels.strides().equals({texels.size(1) * image, image, row, channels, 1}), "texels of shape ",
              texels.sizes(), " have strides ", texels.strides());
  return row;
}

// Room for texels of those sizes, with room for `spare` ones behind each row.
at::Tensor new_texels(const at::Tensor& like, at::IntArrayRef sizes, int64_t spare, bool zeros) {
  at::Tensor all = like.new_empty({sizes[0], sizes[1], sizes[2], sizes[3] + spare, sizes[4]});
#ifndef EG3D_CUDA
  use_large_pages(all.mutable_data_ptr(), all.nbytes());
#endif
  if (zeros) all.zero_();
  return spare > 0 ? all.narrow(3, 0, sizes[3]) : all;
}

// `one_vector`: the GPU's program, which takes 32 channels and at most 32 colours.
Render describe(const Inputs& in, at::IntArrayRef axes, double scale, bool fine_is_depth, bool one_vector) {
  TORCH_CHECK(in.planes.dim() == 5 && in.coarse.dim() == 3 && in.fine.dim() == 3 && in.w1.dim() == 2,
              "planes has to be (B, 3, H, W, C), coarse and fine (B, M, S), w1 (hidden, C)");
  const int64_t batch = in.planes.size(0), rays = in.coarse.size(1), channels = in.planes.size(4);
  const int64_t hidden = in.w1.size(0), outputs = in.w2.size(0);
  TORCH_CHECK(channels % 32 == 0, "planes has ", channels, " channels, expected a multiple of 32");
  TORCH_CHECK(!one_vector || (channels == 32 && outputs <= 33), "expected 32 channels and at most 32 colours");
  check_type(in.planes, in.planes, "planes", ON_GPU);
  TORCH_CHECK(in.planes.size(1) == 3, "planes has shape ", in.planes.sizes());
  const int64_t row = row_of(in.planes);
  TORCH_CHECK(3 * in.planes.size(2) * row <= INT32_MAX, "planes are too large: ", in.planes.sizes());
  check(in.origins, in.planes, {batch, rays, 3}, "origins");
  check(in.directions, in.planes, {batch, rays, 3}, "directions");
  check(in.coarse, in.planes, {batch, rays, in.coarse.size(2)}, "coarse");
  check(in.fine, in.planes, {batch, rays, in.fine.size(2)}, "fine");
  check(in.w1, in.planes, {hidden, channels}, "w1");
  check(in.b1, in.planes, {hidden}, "b1");
  check(in.w2, in.planes, {outputs, hidden}, "w2");
  check(in.b2, in.planes, {outputs}, "b2");
  TORCH_CHECK(in.planes.size(2) > 0 && in.planes.size(3) > 0, "planes has shape ", in.planes.sizes());
  TORCH_CHECK(channels > 0 && hidden > 0 && outputs > 1, "planes and decoder need channels, units and colours");
  TORCH_CHECK(in.coarse.size(2) > 0, "a ray needs a coarse sample");
  TORCH_CHECK(in.fine.size(2) == 0 || fine_is_depth || in.coarse.size(2) > 3, "fine samples need 4 coarse ones");
  Render r{};
  r.planes = in.planes.const_data_ptr();
  r.origins = in.origins.const_data_ptr<float>(), r.directions = in.directions.const_data_ptr<float>();
  r.coarse = in.coarse.const_data_ptr<float>(), r.fine = in.fine.const_data_ptr<float>();
  r.w1 = in.w1.const_data_ptr<float>(), r.b1 = in.b1.const_data_ptr<float>();
  r.w2 = in.w2.const_data_ptr<float>(), r.b2 = in.b2.const_data_ptr<float>();
  r.batch = batch, r.rays = rays;
  r.num_coarse = int(in.coarse.size(2)), r.num_fine = int(in.fine.size(2));
  r.height = int(in.planes.size(2)), r.width = int(in.planes.size(3)), r.row = int(row);
  r.channels = int(channels), r.hidden = int(hidden), r.colors = int(outputs) - 1;
  for (int k = 0; k < 6; ++k) r.axes[k] = int(axes[k]);
  r.scale = float(scale), r.fine_is_depth = fine_is_depth;
  return r;
}

// log2 of a number, rounded up.
int bits_of(int64_t count) {
  int bits = 0;
  while (bits < 62 && (int64_t(1) << bits) < count) ++bits;
  return bits;
}

// Gradients whose sums do not depend on the order in which the lanes of a GPU come to add: two passes.
void run_backward_deterministically(const Render& r, RenderGradients g, const at::Tensor& planes, bool by_lanes) {
  const int64_t samples = r.num_coarse + r.num_fine, rays = r.batch * r.rays;
  at::Tensor most = planes.new_zeros({2}, c10::ScalarType::Int);
  at::Tensor of_planes = planes.new_zeros({g.planes ? r.batch * 3 * r.height * r.row : 0}, c10::ScalarType::Long);
  at::Tensor of_net = planes.new_zeros({g.w1 ? num_whole_sums_of_decoder(r) : 0}, c10::ScalarType::Long);
  g.whole_planes = {nullptr, most.mutable_data_ptr<int32_t>(), bits_of(r.rays * samples)};
  g.whole_net = {nullptr, g.whole_planes.most + 1, bits_of(rays * samples)};
  RenderGradients search = g;
  search.origins = search.directions = nullptr;  // these are added once
  run_backward(r, search, planes, by_lanes);
  g.whole_planes.to = of_planes.mutable_data_ptr<int64_t>(), g.whole_net.to = of_net.mutable_data_ptr<int64_t>();
  run_backward(r, g, planes, by_lanes);
  read_whole_sums(r, g, planes);
}

}  // namespace

#ifndef EG3D_CUDA
at::Tensor interleave(const at::Tensor& planes, int64_t width) {
  constexpr int64_t SPARE = 2;  // rows a power of two apart would share few places of the caches
  TORCH_CHECK(planes.dim() == 5 && planes.size(2) <= width, "planes has to be (B, 3, C, H, W), C at most ", width);
  check(planes, planes, planes.sizes(), "planes");
  const Layout layout{planes.size(0) * planes.size(1), planes.size(2), planes.size(3), planes.size(4), width,
                      (planes.size(4) + SPARE) * width};
  const int64_t sizes[] = {planes.size(0), planes.size(1), planes.size(3), planes.size(4), width};
  at::Tensor out = new_texels(planes, sizes, SPARE, false);
  interleave_cpu(planes.const_data_ptr<float>(), out.mutable_data_ptr<float>(), layout);
  return out;
}

at::Tensor separate(const at::Tensor& texels, int64_t channels) {
  TORCH_CHECK(texels.dim() == 5 && texels.size(4) >= channels, "texels has to be (B, 3, H, W, C), C >= ", channels);
  check_type(texels, texels, "texels");
  const Layout layout{texels.size(0) * texels.size(1), channels, texels.size(2), texels.size(3), texels.size(4),
                      row_of(texels)};
  at::Tensor out = texels.new_empty({texels.size(0), texels.size(1), channels, texels.size(2), texels.size(3)});
  separate_cpu(texels.const_data_ptr<float>(), out.mutable_data_ptr<float>(), layout);
  return out;
}
#endif

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> render(
    const at::Tensor& planes, const at::Tensor& origins, const at::Tensor& directions, const at::Tensor& coarse,
    const at::Tensor& fine, const at::Tensor& w1, const at::Tensor& b1, const at::Tensor& w2, const at::Tensor& b2,
    at::IntArrayRef axes, double scale, bool fine_is_depth, bool with_features, bool by_lanes) {
  const Inputs inputs{planes, origins, directions, coarse, fine, w1, b1, w2, b2};
  Render r = describe(inputs, axes, scale, fine_is_depth, by_lanes || ON_GPU);
  at::Tensor features = coarse.new_empty({r.batch, r.rays, with_features ? r.colors : 0});
  at::Tensor depth = coarse.new_empty({r.batch, r.rays, 1}), total = coarse.new_empty({r.batch, r.rays, 1});
  at::Tensor limits = coarse.new_empty({r.batch, r.rays, 2});
  r.features = with_features ? features.mutable_data_ptr<float>() : nullptr;
  r.depth = depth.mutable_data_ptr<float>(), r.total = total.mutable_data_ptr<float>();
  r.limits = limits.mutable_data_ptr<float>();
  run(r, planes, by_lanes);
  return {features, depth, total, limits};
}

std::vector<at::Tensor> render_backward(
    const at::Tensor& planes, const at::Tensor& origins, const at::Tensor& directions, const at::Tensor& coarse,
    const at::Tensor& fine, const at::Tensor& w1, const at::Tensor& b1, const at::Tensor& w2, const at::Tensor& b2,
    at::IntArrayRef axes, double scale, bool fine_is_depth, const Maybe& d_features,
    const at::Tensor& d_depth, const at::Tensor& d_total, bool of_planes, bool of_rays, bool of_decoder,
    bool by_lanes) {
  const Inputs inputs{planes, origins, directions, coarse, fine, w1, b1, w2, b2};
  const Render r = describe(inputs, axes, scale, fine_is_depth, by_lanes || ON_GPU);
  check(d_depth, planes, {r.batch, r.rays, 1}, "d_depth");
  check(d_total, planes, {r.batch, r.rays, 1}, "d_total");
  if (d_features) check(*d_features, planes, {r.batch, r.rays, r.colors}, "d_features");
  std::vector<at::Tensor> made;
  RenderGradients g{};
  const auto make = [&](const at::Tensor& like, bool wanted) -> float* {
    made.push_back(like.new_zeros(wanted ? like.sizes() : at::IntArrayRef({0})));
    return wanted ? made.back().mutable_data_ptr<float>() : nullptr;
  };
  g.features = d_features ? d_features->const_data_ptr<float>() : nullptr;
  g.depth = d_depth.const_data_ptr<float>(), g.total = d_total.const_data_ptr<float>();
  made.push_back(of_planes ? new_texels(coarse, planes.sizes(), r.row / r.channels - r.width, true)
                           : coarse.new_zeros({0}));
  g.planes = of_planes ? made.back().mutable_data_ptr<float>() : nullptr;
  g.origins = make(origins, of_rays), g.directions = make(directions, of_rays);
  g.w1 = make(w1, of_decoder), g.b1 = make(b1, of_decoder);
  g.w2 = make(w2, of_decoder), g.b2 = make(b2, of_decoder);
  if ((ON_GPU || by_lanes) && (g.planes || g.w1) && at::globalContext().deterministicAlgorithms())
    run_backward_deterministically(r, g, planes, by_lanes);
  else
    run_backward(r, g, planes, by_lanes);
  return made;
}

}  // namespace eg3d
