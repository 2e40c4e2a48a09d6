// Operators that are defined in one file and registered in library.cpp, which alone reads PyTorch's slowest header.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>
#include <vector>

namespace eg3d {

using Maybe = std::optional<at::Tensor>;

// Planes (B, 3, C, H, W) to (B, 3, H, W, width), filled up by zeros, and back to `channels`; on a CPU.
at::Tensor interleave(const at::Tensor& planes, int64_t width);
at::Tensor separate(const at::Tensor& planes, int64_t channels);

// 3x3 convolutions of synthesis layers and what surrounds them (see layer.h), on a CPU.
at::Tensor conv3x3(const at::Tensor& x, const at::Tensor& w, bool flip, const Maybe& scale, const Maybe& shift,
                   const Maybe& factor, const Maybe& noise, const Maybe& bias, const Maybe& slope, double gain,
                   double clamp);
std::tuple<at::Tensor, at::Tensor> conv3x3_gradient(const at::Tensor& g, const at::Tensor& w, bool flip,
                                                    const Maybe& scale, const Maybe& factor, const Maybe& like);
at::Tensor conv3x3_up(const at::Tensor& x, const at::Tensor& w, bool flip, const Maybe& scale);
std::tuple<at::Tensor, at::Tensor> conv3x3_down(const at::Tensor& z, const at::Tensor& w, bool flip, bool padded,
                                                const Maybe& scale, const Maybe& factor, const Maybe& like);
at::Tensor conv3x3_weights(const at::Tensor& x, const at::Tensor& dy, const Maybe& scale, const Maybe& factor);
at::Tensor filter_image(const at::Tensor& x, at::ArrayRef<double> taps, int64_t pad, at::IntArrayRef size,
                        const Maybe& factor, const Maybe& noise, const Maybe& bias, const Maybe& slope, double gain,
                        double clamp);
std::tuple<at::Tensor, at::Tensor, at::Tensor> epilogue_gradient(const at::Tensor& dy, const at::Tensor& y,
                                                                 const Maybe& noise, const Maybe& bias,
                                                                 const Maybe& slope, double gain, double clamp);

// `by_lanes` runs the GPU's program on a CPU, for tests; a GPU runs no other.
// features, depth, total, limits (see eg3d/rendering/marching.py, Marched).
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> render(
    const at::Tensor& planes, const at::Tensor& origins, const at::Tensor& directions, const at::Tensor& coarse,
    const at::Tensor& fine, const at::Tensor& w1, const at::Tensor& b1, const at::Tensor& w2, const at::Tensor& b2,
    at::IntArrayRef axes, double scale, bool fine_is_depth, bool with_features, bool by_lanes);

// Gradients of planes (float32), origins, directions, w1, b1, w2, b2; empty ones for what is not wanted.
std::vector<at::Tensor> render_backward(
    const at::Tensor& planes, const at::Tensor& origins, const at::Tensor& directions, const at::Tensor& coarse,
    const at::Tensor& fine, const at::Tensor& w1, const at::Tensor& b1, const at::Tensor& w2, const at::Tensor& b2,
    at::IntArrayRef axes, double scale, bool fine_is_depth, const Maybe& d_features,
    const at::Tensor& d_depth, const at::Tensor& d_total, bool of_planes, bool of_rays, bool of_decoder,
    bool by_lanes);

}  // namespace eg3d
