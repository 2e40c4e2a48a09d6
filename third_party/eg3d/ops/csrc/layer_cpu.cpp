// What surrounds the convolutions of a synthesis layer, in one pass over memory each: the FIR filter with the layer's
// epilogue behind it, and the gradient of that epilogue. Images are (B, C, H, W) with channels last.
#include <ATen/Parallel.h>
#include <mutex>
#include <vector>

#include "layer.h"
#include "pixels.h"

namespace eg3d {
namespace {

constexpr int TAPS = 4;
constexpr int STRIP = 16, ROWS = 8;  // pixels and rows of an output that are filtered together

// An output patch of a separable filter, y[o] = sum_k f[k] x[o - pad + k] on each axis.
struct Filter {
  Lattice from, to;
  float taps[TAPS];
  int pad;

  // Columns first <= x < last of row y, filtered along y, to sums; zero outside of the image. `zeros` is a row.
  void along_y(int64_t sample, int y, int first, int last, const float* zeros, float* sums) const {
    const int64_t channels = from.channels, begin = std::max(first, 0), end = std::min(last, from.width);
    const float* rows[TAPS];
    for (int k = 0; k < TAPS; ++k) {
      const int row = y - pad + k;
      const bool inside = row >= 0 && row < from.height;
      rows[k] = inside ? from.data + sample * from.sample + row * from.row + begin * from.pixel : zeros;
    }
    std::fill(sums, sums + (begin - first) * channels, 0.0f);
    std::fill(sums + (end - first) * channels, sums + (last - first) * channels, 0.0f);
    float* sum = sums + (begin - first) * channels;
    for (int64_t i = 0; i < (end - begin) * channels; i += LANES) {
      Lanes total = taps[0] * load(rows[0] + i);
      for (int k = 1; k < TAPS; ++k) total += taps[k] * load(rows[k] + i);
      store(sum + i, total);
    }
  }

  // Pixel number `i` of the sums, filtered along x, at channel c.
  Lanes along_x(const float* sums, int i, int c) const {
    const float* at = sums + int64_t(i) * from.channels + c;
    Lanes total = taps[0] * load(at);
    for (int k = 1; k < TAPS; ++k) total += taps[k] * load(at + k * from.channels);
    return total;
  }
};

}  // namespace

at::Tensor filter_image(const at::Tensor& x_any, at::ArrayRef<double> taps, int64_t pad, at::IntArrayRef size,
                        const Maybe& factor, const Maybe& noise, const Maybe& bias, const Maybe& slope, double gain,
                        double clamp) {
  TORCH_CHECK(taps.size() == TAPS, "expected ", TAPS, " taps");
  const at::Tensor x = pixels_of(x_any);
  at::Tensor y = image_like(x, x.size(1), size[0], size[1]);
  const Layer layer(y, factor, noise, bias, slope, gain, clamp);
  Filter filter{lattice(x), lattice(y), {}, int(pad)};
  std::copy(taps.begin(), taps.end(), filter.taps);
  float* out = y.mutable_data_ptr<float>();
  const Lattice& to = filter.to;
  const int64_t bands = (to.height + ROWS - 1) / ROWS;
  at::parallel_for(0, y.size(0) * bands, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> sums((STRIP + TAPS - 1) * to.channels), zeros(sums.size());
    for (int64_t i = begin; i < end; ++i) {
      const int64_t sample = i / bands;
      const int top = int(i % bands) * ROWS, bottom = std::min(top + ROWS, to.height);
      for (int left = 0; left < to.width; left += STRIP) {
        const int right = std::min(left + STRIP, to.width);
        for (int row = top; row < bottom; ++row) {
          filter.along_y(sample, row, left - filter.pad, right - filter.pad + TAPS - 1, zeros.data(),
                         sums.data());
          for (int column = left; column < right; ++column) {
            float* pixel = out + sample * to.sample + row * to.row + column * to.pixel;
            layer.epilogue.pixel(sample, row, column, [&](int c) { return filter.along_x(sums.data(), column - left, c); },
                                 pixel);
          }
        }
      }
    }
  });
  return y;
}

// Gradient of the epilogue in u = factor x + noise + bias, from y: du, and its sums over the pixels of each sample of
// du and of du factor x.
std::tuple<at::Tensor, at::Tensor, at::Tensor> epilogue_gradient(const at::Tensor& dy_any, const at::Tensor& y_any,
                                                                 const Maybe& noise, const Maybe& bias,
                                                                 const Maybe& slope, double gain, double clamp) {
  const at::Tensor y = pixels_of(y_any), dy = pixels_of(dy_any);
  check(dy, y.sizes(), "dy");
  at::Tensor du = image_like(y, y.size(1), y.size(2), y.size(3));
  const Layer layer(y, {}, noise, bias, slope, gain, clamp);
  const Epilogue& epilogue = layer.epilogue;
  const Lattice of_y = lattice(y), of_dy = lattice(dy);
  const int channels = of_y.channels;
  at::Tensor sums = at::zeros({2, y.size(0), channels}, at::kDouble);
  double* totals = sums.mutable_data_ptr<double>();
  const int64_t total_stride = y.size(0) * channels;
  float* out = du.mutable_data_ptr<float>();
  std::mutex mutex;
  at::parallel_for(0, y.size(0) * of_y.height, 8, [&](int64_t begin, int64_t end) {
    std::vector<float> part(2 * channels);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t sample = i / of_y.height;
      const int row = int(i % of_y.height);
      std::fill(part.begin(), part.end(), 0.0f);
      for (int column = 0; column < of_y.width; ++column) {
        const int64_t at = sample * of_y.sample + row * of_y.row + column * of_y.pixel;
        const float shift = epilogue.noise_at(sample, row, column);
        for (int c = 0; c < channels; c += LANES) {
          const Epilogue::Lane lane = epilogue.lane(sample, c);
          const Lanes value = load(of_y.data + at + c), change = epilogue.gradient(lane, value, load(of_dy.data + at + c));
          store(out + at + c, change);
          store(part.data() + c, load(part.data() + c) + change);
          float* second = part.data() + channels + c;
          store(second, load(second) + change * epilogue.product(lane, value, shift));
        }
      }
      const std::lock_guard<std::mutex> guard(mutex);
      for (int c = 0; c < channels; ++c) {
        totals[sample * channels + c] += part[c];
        totals[total_stride + sample * channels + c] += part[channels + c];
      }
    }
  });
  sums = sums.to(at::kFloat);
  return {du, sums.select(0, 0), sums.select(0, 1)};
}

}  // namespace eg3d
