// The operators as PyTorch sees them: checks, memory, and the call of the kernel. Compiled once for the CPU and once,
// with EG3D_CUDA, for the GPU; EG3D_NAME (eg3d_cpu, eg3d_cuda) names the library.
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "operators.h"
#include "upfirdn2d.h"

#ifdef EG3D_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#else
#include <ATen/Parallel.h>

#include "parallel.h"
#endif

namespace eg3d {
namespace {

#ifdef EG3D_CUDA
constexpr auto DEVICE = c10::DeviceType::CUDA;

template <typename Args> void run(void (*kernel)(const Args&, void*), const Args& args) {
  kernel(args, static_cast<void*>(c10::cuda::getCurrentCUDAStream().stream()));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}
#define EG3D_RUN(op, args) run(op##_cuda, args)
#define EG3D_GUARD(x) const c10::cuda::CUDAGuard guard((x).device())
#else
constexpr auto DEVICE = c10::DeviceType::CPU;
#define EG3D_RUN(op, args) op##_cpu(args)
#define EG3D_GUARD(x)
#endif

void check(const at::Tensor& x, const at::Tensor& like, c10::ScalarType dtype, const char* name) {
  TORCH_CHECK(x.device().type() == DEVICE && x.device() == like.device(), name, " is on ", x.device());
  TORCH_CHECK(x.scalar_type() == dtype, name, " is ", x.scalar_type(), ", expected ", dtype);
}

void check_floating(const at::Tensor& x) {
  const auto dtype = x.scalar_type();
  TORCH_CHECK(dtype == c10::ScalarType::Float || dtype == c10::ScalarType::Double || dtype == c10::ScalarType::Half ||
                  dtype == c10::ScalarType::BFloat16, "x is ", dtype, ", expected a floating-point type");
  check(x, x, dtype, "x");
}

// x is dense. Methods of tensors need no headers of their own, unlike functions.
at::Tensor new_like(const at::Tensor& x) { return x.new_empty_strided(x.sizes(), x.strides()); }

at::Tensor in_layout_of(const at::Tensor& t, const at::Tensor& x) {
  return t.strides() == x.strides() ? t : new_like(x).copy_(t);
}

at::Tensor bias_act(const at::Tensor& x_any, const std::optional<at::Tensor>& b_any,
                    const std::optional<at::Tensor>& t_any, int64_t dim, int64_t act, int64_t order, double alpha,
                    double gain, double clamp) {
  check_floating(x_any);
  EG3D_GUARD(x_any);
  const at::Tensor x = x_any.is_non_overlapping_and_dense() ? x_any : x_any.contiguous();
  at::Tensor y = new_like(x), b, t;
  if (b_any) {
    check(*b_any, x, x.scalar_type(), "b");
    TORCH_CHECK(b_any->dim() == 1 && b_any->size(0) == x.size(dim), "b does not fit x");
    b = b_any->contiguous();
  }
  TORCH_CHECK(order >= 0 && order <= 2 && t_any.has_value() == (order > 0), "t is for derivatives of order 1 and 2");
  if (t_any) {
    check(*t_any, x, x.scalar_type(), "t");
    TORCH_CHECK(t_any->sizes() == x.sizes(), "t does not have the shape of x");
    t = in_layout_of(*t_any, x);
  }
  BiasAct args{x.const_data_ptr(), b_any ? b.const_data_ptr() : nullptr, t_any ? t.const_data_ptr() : nullptr,
               y.mutable_data_ptr(), x.numel(), 1, 1, int(act), int(order), alpha, gain, clamp, x.scalar_type()};
  if (b_any && x.size(dim) > 1) args.step = x.stride(dim), args.channels = x.size(dim);
  if (args.channels == 1) args.step = std::max<int64_t>(x.numel(), 1);
  if (x.numel() > 0) EG3D_RUN(bias_act, args);
  return y;
}

at::Tensor upfirdn2d(const at::Tensor& x_any, const at::Tensor& f_any, at::IntArrayRef up, at::IntArrayRef down,
                     at::IntArrayRef pad, at::IntArrayRef size, bool flip, double gain) {
  check_floating(x_any);
  check(f_any, x_any, c10::ScalarType::Float, "f");
  TORCH_CHECK(x_any.dim() == 4 && f_any.dim() == 2, "x has to be (B, C, H, W) and f (T_y, T_x)");
  TORCH_CHECK(up[0] > 0 && up[1] > 0 && down[0] > 0 && down[1] > 0, "up and down have to be positive");
  EG3D_GUARD(x_any);
  const bool channels_last =
      DEVICE != c10::DeviceType::CPU && x_any.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
  const at::Tensor x = DEVICE == c10::DeviceType::CPU ? x_any.contiguous() : x_any, f = f_any.contiguous();
  const int64_t channels = x.size(1), shape[] = {x.size(0), channels, size[1], size[0]};
  const int64_t strides[] = {size[1] * size[0] * channels, 1, size[0] * channels, channels};
  at::Tensor y = channels_last ? x.new_empty_strided(shape, strides) : x.new_empty(shape);
  Upfirdn2d args{x.const_data_ptr(), f.const_data_ptr<float>(), y.mutable_data_ptr(), x.size(0), x.size(1),
                 int(x.size(3)), int(x.size(2)), int(size[0]), int(size[1]), int(f.size(1)), int(f.size(0)),
                 int(up[0]), int(up[1]), int(down[0]), int(down[1]), int(pad[0]), int(pad[1]),
                 {}, {}, flip, channels_last, gain, x.scalar_type()};
  std::copy_n(x.strides().begin(), 4, args.x_strides);
  std::copy_n(y.strides().begin(), 4, args.y_strides);
  if (y.numel() > 0) EG3D_RUN(upfirdn2d, args);
  return y;
}

}  // namespace

#ifndef EG3D_CUDA
int num_threads() { return at::get_num_threads(); }

void parallel_for(int64_t begin, int64_t end, int64_t grain, void (*call)(const void*, int64_t, int64_t),
                  const void* work) {
  at::parallel_for(begin, end, grain, [&](int64_t first, int64_t last) { call(work, first, last); });
}
#endif

}  // namespace eg3d

#define EG3D_LIBRARY(name, module) TORCH_LIBRARY(name, module)
EG3D_LIBRARY(EG3D_NAME, module) {
  module.def(
      "bias_act(Tensor x, Tensor? b, Tensor? t, int dim, int act, int order, float alpha, float gain, float clamp)"
      " -> Tensor", &eg3d::bias_act);
  module.def(  // pairs are (x, y)
      "upfirdn2d(Tensor x, Tensor f, int[2] up, int[2] down, int[2] pad, int[2] size, bool flip, float gain)"
      " -> Tensor", &eg3d::upfirdn2d);
#ifndef EG3D_CUDA
  module.def("interleave(Tensor planes, int width) -> Tensor", &eg3d::interleave);
  module.def("separate(Tensor planes, int channels) -> Tensor", &eg3d::separate);
  module.def(
      "conv3x3(Tensor x, Tensor w, bool flip, Tensor? scale, Tensor? shift, Tensor? factor, Tensor? noise, "
      "Tensor? bias, Tensor? slope, float gain, float clamp) -> Tensor", &eg3d::conv3x3);
  module.def(
      "conv3x3_gradient(Tensor g, Tensor w, bool flip, Tensor? scale, Tensor? factor, Tensor? like)"
      " -> (Tensor, Tensor)", &eg3d::conv3x3_gradient);
  module.def("conv3x3_up(Tensor x, Tensor w, bool flip, Tensor? scale) -> Tensor", &eg3d::conv3x3_up);
  module.def(
      "conv3x3_down(Tensor z, Tensor w, bool flip, bool padded, Tensor? scale, Tensor? factor, Tensor? like)"
      " -> (Tensor, Tensor)", &eg3d::conv3x3_down);
  module.def("conv3x3_weights(Tensor x, Tensor dy, Tensor? scale, Tensor? factor) -> Tensor", &eg3d::conv3x3_weights);
  module.def(
      "filter_image(Tensor x, float[] taps, int pad, int[2] size, Tensor? factor, Tensor? noise, Tensor? bias, "
      "Tensor? slope, float gain, float clamp) -> Tensor", &eg3d::filter_image);
  module.def(
      "epilogue_gradient(Tensor dy, Tensor y, Tensor? noise, Tensor? bias, Tensor? slope, float gain, float clamp)"
      " -> (Tensor, Tensor, Tensor)", &eg3d::epilogue_gradient);
#endif
  module.def(  // -> features, depth, total, limits
      "render(Tensor planes, Tensor origins, Tensor directions, Tensor coarse, Tensor fine, Tensor w1, Tensor b1,"
      " Tensor w2, Tensor b2, int[6] axes, float scale, bool fine_is_depth, bool with_features,"
      " bool by_lanes=False)"
      " -> (Tensor, Tensor, Tensor, Tensor)", &eg3d::render);
  module.def(
      "render_backward(Tensor planes, Tensor origins, Tensor directions, Tensor coarse, Tensor fine, Tensor w1,"
      " Tensor b1, Tensor w2, Tensor b2, int[6] axes, float scale, bool fine_is_depth, Tensor? d_features,"
      " Tensor d_depth, Tensor d_total, bool of_planes, bool of_rays, bool of_decoder,"
      " bool by_lanes=False) -> Tensor[]",
      &eg3d::render_backward);
}
