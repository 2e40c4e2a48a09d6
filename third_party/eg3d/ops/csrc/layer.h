// What surrounds the convolutions of a synthesis layer, registered with them.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace eg3d {

at::Tensor filter_image(const at::Tensor& x, at::ArrayRef<double> taps, int64_t pad, at::IntArrayRef size,
                        const std::optional<at::Tensor>& factor, const std::optional<at::Tensor>& noise,
                        const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& slope, double gain,
                        double clamp);

std::tuple<at::Tensor, at::Tensor, at::Tensor> epilogue_gradient(
    const at::Tensor& dy, const at::Tensor& y, const std::optional<at::Tensor>& noise,
    const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& slope, double gain, double clamp);

// Gradient (O, I, 3, 3) of the weight of conv3x3: of sum(dy factor conv(weight, scale x)).
at::Tensor conv3x3_weights(const at::Tensor& x, const at::Tensor& dy, const std::optional<at::Tensor>& scale,
                           const std::optional<at::Tensor>& factor);

}  // namespace eg3d
