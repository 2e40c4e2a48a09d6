// 3x3 convolutions of synthesis layers and what surrounds them as PyTorch sees them: x and y are (B, C, H, W) with
// channels last.
#include "layer.h"

#include <ATen/core/Tensor.h>

#include <limits>

#include "operators.h"

namespace eg3d {
namespace {

using Maybe = std::optional<at::Tensor>;

void check(const at::Tensor& x, at::IntArrayRef shape, const char* name) {
  TORCH_CHECK(x.device().is_cpu() && x.scalar_type() == at::kFloat, name, " is not a float tensor on the CPU");
  TORCH_CHECK(x.sizes() == shape, name, " has shape ", x.sizes(), ", expected ", shape);
}

at::Tensor pixels_of(const at::Tensor& x) {
  TORCH_CHECK(x.dim() == 4 && x.device().is_cpu() && x.scalar_type() == at::kFloat && x.size(1) % LANES == 0,
              "expected a float image (B, C, H, W) on the CPU with C a multiple of ", LANES);
  return x.contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor image_like(const at::Tensor& x, int64_t channels, int64_t height, int64_t width) {
  return x.new_empty_strided({x.size(0), channels, height, width},
                             {height * width * channels, 1, width * channels, channels});
}

Lattice lattice(const at::Tensor& x) {
  const int64_t channels = x.size(1), row = x.size(3) * channels;
  return {x.const_data_ptr<float>(), x.size(2) * row, row, channels, int(x.size(0)),
          int(x.size(2)), int(x.size(3)), int(channels)};
}

at::Tensor given(const Maybe& t, at::IntArrayRef shape, float otherwise, const at::Tensor& x, const char* name) {
  if (!t) return x.new_full(shape, otherwise);
  check(*t, shape, name);
  return t->contiguous();
}

// Epilogue of a layer; keeps what its pointers point to.
struct Layer {
  at::Tensor factor, bias, below, noise;
  Epilogue epilogue;
  Layer(const at::Tensor& y, const Maybe& d, const Maybe& n, const Maybe& b, const Maybe& slope, double gain,
        double clamp) {
    const int64_t batch = y.size(0), channels = y.size(1), height = y.size(2), width = y.size(3);
    factor = given(d, {batch, channels}, 1.0f, y, "factor");
    bias = given(b, {channels}, 0.0f, y, "bias");
    below = given(slope, {channels}, 1.0f, y, "slope");
    const bool shared = n && n->dim() == 2;
    if (n && shared) check(*n, {height, width}, "noise");
    if (n && !shared) check(*n, {batch, 1, height, width}, "noise");
    if (n) noise = n->contiguous();
    epilogue = {factor.const_data_ptr<float>(), bias.const_data_ptr<float>(), below.const_data_ptr<float>(),
                n ? noise.const_data_ptr<float>() : nullptr, shared ? 0 : height * width, int(channels), int(width),
                float(gain), clamp < 0 ? std::numeric_limits<float>::infinity() : float(clamp)};
  }
};

Filters filters(const at::Tensor& w, bool flip, const at::Tensor& x) {
  check(w, {w.size(0), x.size(1), 3, 3}, "w");
  TORCH_CHECK(w.size(0) % LANES == 0, "w has ", w.size(0), " outputs, expected a multiple of ", LANES);
  return {w.const_data_ptr<float>(), w.stride(0), w.stride(1), w.stride(2), w.stride(3), int(w.size(0)),
          int(w.size(1)), flip};
}

Affine affine(const at::Tensor& scale, const Maybe& shift) {
  return {scale.const_data_ptr<float>(), shift ? shift->const_data_ptr<float>() : nullptr, scale.size(1)};
}

// The last step of a gradient in an image like y; keeps what its pointers point to.
struct Scale {
  at::Tensor factor, like, sums;
  Scaling scaling;
  Scale(const at::Tensor& y, const Maybe& factor_any, const Maybe& like_any)
      : factor(given(factor_any, {y.size(0), y.size(1)}, 1.0f, y, "factor")),
        sums(y.new_empty({y.size(0), y.size(1)})) {
    if (like_any) {
      check(*like_any, y.sizes(), "x");
      like = pixels_of(*like_any);
    }
    scaling = {factor.const_data_ptr<float>(), like_any ? like.const_data_ptr<float>() : nullptr,
               sums.mutable_data_ptr<float>()};
  }
};

}  // namespace

at::Tensor conv3x3(const at::Tensor& x_any, const at::Tensor& w, bool flip, const Maybe& scale_any,
                   const Maybe& shift, const Maybe& factor, const Maybe& noise, const Maybe& bias, const Maybe& slope,
                   double gain, double clamp) {
  const at::Tensor x = pixels_of(x_any), scale = given(scale_any, {x.size(0), x.size(1)}, 1.0f, x, "scale");
  if (shift) check(*shift, {x.size(1)}, "shift");
  const Filters all = filters(w, flip, x);
  at::Tensor y = image_like(x, all.outputs, x.size(2), x.size(3));
  const Layer layer(y, factor, noise, bias, slope, gain, clamp);
  conv3x3_cpu(lattice(x), all, affine(scale, shift), layer.epilogue, lattice(y), y.mutable_data_ptr<float>());
  return y;
}

std::tuple<at::Tensor, at::Tensor> conv3x3_gradient(const at::Tensor& g_any, const at::Tensor& w, bool flip,
                                                    const Maybe& scale_any, const Maybe& factor, const Maybe& like) {
  const at::Tensor g = pixels_of(g_any), scale = given(scale_any, {g.size(0), g.size(1)}, 1.0f, g, "scale");
  const Filters all = filters(w, flip, g);
  at::Tensor y = image_like(g, all.outputs, g.size(2), g.size(3));
  const Scale last(y, factor, like);
  conv3x3_gradient_cpu(lattice(g), all, affine(scale, {}), last.scaling, lattice(y), y.mutable_data_ptr<float>());
  return {y, last.sums};
}

at::Tensor conv3x3_up(const at::Tensor& x_any, const at::Tensor& w, bool flip, const Maybe& scale_any) {
  const at::Tensor x = pixels_of(x_any), scale = given(scale_any, {x.size(0), x.size(1)}, 1.0f, x, "scale");
  const Filters all = filters(w, flip, x);
  at::Tensor z = image_like(x, all.outputs, 2 * x.size(2) + 1, 2 * x.size(3) + 1);
  conv3x3_up_cpu(lattice(x), all, affine(scale, {}), lattice(z), z.mutable_data_ptr<float>());
  return z;
}

std::tuple<at::Tensor, at::Tensor> conv3x3_down(const at::Tensor& z_any, const at::Tensor& w, bool flip, bool padded,
                                                const Maybe& scale_any, const Maybe& factor, const Maybe& like) {
  const at::Tensor z = pixels_of(z_any), scale = given(scale_any, {z.size(0), z.size(1)}, 1.0f, z, "scale");
  TORCH_CHECK(z.size(2) % 2 != padded && z.size(3) % 2 != padded && z.size(2) > 1 && z.size(3) > 1,
              "z has to be of odd size, padding included");
  const Filters all = filters(w, flip, z);
  at::Tensor y = image_like(z, all.outputs, z.size(2) / 2, z.size(3) / 2);
  const Scale last(y, factor, like);
  conv3x3_down_cpu(lattice(z), all, padded, affine(scale, {}), last.scaling, lattice(y), y.mutable_data_ptr<float>());
  return {y, last.sums};
}

at::Tensor conv3x3_weights(const at::Tensor& x_any, const at::Tensor& dy_any, const Maybe& scale_any,
                           const Maybe& factor_any) {
  const at::Tensor x = pixels_of(x_any), dy = pixels_of(dy_any);
  check(dy, {x.size(0), dy.size(1), x.size(2), x.size(3)}, "dy");
  const at::Tensor scale = given(scale_any, {x.size(0), x.size(1)}, 1.0f, x, "scale");
  const at::Tensor factor = given(factor_any, {x.size(0), dy.size(1)}, 1.0f, x, "factor");
  at::Tensor filters = x.new_empty({dy.size(1), x.size(1), 3, 3});
  conv3x3_weights_cpu(lattice(x), lattice(dy), scale.const_data_ptr<float>(), factor.const_data_ptr<float>(),
                      filters.mutable_data_ptr<float>());
  return filters;
}

at::Tensor filter_image(const at::Tensor& x_any, at::ArrayRef<double> taps, int64_t pad, at::IntArrayRef size,
                        const Maybe& factor, const Maybe& noise, const Maybe& bias, const Maybe& slope, double gain,
                        double clamp) {
  TORCH_CHECK(taps.size() == FILTER_TAPS, "expected ", FILTER_TAPS, " taps");
  const at::Tensor x = pixels_of(x_any);
  at::Tensor y = image_like(x, x.size(1), size[0], size[1]);
  const Layer layer(y, factor, noise, bias, slope, gain, clamp);
  float numbers[FILTER_TAPS];
  std::copy(taps.begin(), taps.end(), numbers);
  filter_image_cpu(lattice(x), numbers, int(pad), layer.epilogue, lattice(y), y.mutable_data_ptr<float>());
  return y;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> epilogue_gradient(const at::Tensor& dy_any, const at::Tensor& y_any,
                                                                 const Maybe& noise, const Maybe& bias,
                                                                 const Maybe& slope, double gain, double clamp) {
  const at::Tensor y = pixels_of(y_any), dy = pixels_of(dy_any);
  check(dy, y.sizes(), "dy");
  at::Tensor du = image_like(y, y.size(1), y.size(2), y.size(3));
  at::Tensor sums = y.new_empty({y.size(0), y.size(1)}), products = y.new_empty({y.size(0), y.size(1)});
  const Layer layer(y, {}, noise, bias, slope, gain, clamp);
  epilogue_gradient_cpu(lattice(dy), lattice(y), layer.epilogue, du.mutable_data_ptr<float>(),
                        sums.mutable_data_ptr<float>(), products.mutable_data_ptr<float>());
  return {du, sums, products};
}

}  // namespace eg3d
