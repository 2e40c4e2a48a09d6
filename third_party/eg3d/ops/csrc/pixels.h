// Images of PyTorch as the kernels see them: float tensors (B, C, H, W) with channels last, C a multiple of LANES.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include "epilogue.h"
#include "lattice.h"

namespace eg3d {

using Maybe = std::optional<at::Tensor>;

inline void check(const at::Tensor& x, at::IntArrayRef shape, const char* name) {
  TORCH_CHECK(x.device().is_cpu() && x.scalar_type() == at::kFloat, name, " is not a float tensor on the CPU");
  TORCH_CHECK(x.sizes() == shape, name, " has shape ", x.sizes(), ", expected ", shape);
}

inline at::Tensor pixels_of(const at::Tensor& x) {
  TORCH_CHECK(x.dim() == 4 && x.device().is_cpu() && x.scalar_type() == at::kFloat && x.size(1) % LANES == 0,
              "expected a float image (B, C, H, W) on the CPU with C a multiple of ", LANES);
  return x.contiguous(at::MemoryFormat::ChannelsLast);
}

inline at::Tensor image_like(const at::Tensor& x, int64_t channels, int64_t height, int64_t width) {
  return at::empty({x.size(0), channels, height, width}, x.options().memory_format(at::MemoryFormat::ChannelsLast));
}

inline Lattice lattice(const at::Tensor& x) {
  const int64_t channels = x.size(1), row = x.size(3) * channels;
  return {x.const_data_ptr<float>(), x.size(2) * row, row, channels, int(x.size(2)), int(x.size(3)), int(channels)};
}

inline at::Tensor given(const Maybe& t, at::IntArrayRef shape, float otherwise, const at::Tensor& x, const char* name) {
  if (!t) return at::zeros(shape, x.options().memory_format(at::MemoryFormat::Contiguous)).fill_(otherwise);
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

}  // namespace eg3d
