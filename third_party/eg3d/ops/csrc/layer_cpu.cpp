// What surrounds the convolutions of a synthesis layer, in one pass over memory each: the FIR filter with the layer's
// epilogue behind it, and the gradient of that epilogue. Images are (B, C, H, W) with channels last.
#include "layer.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "parallel.h"

namespace eg3d {
namespace {

constexpr int TAPS = FILTER_TAPS;
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

void filter_image_cpu(const Lattice& x, const float* taps, int pad, const Epilogue& epilogue, const Lattice& to,
                      float* out) {
  Filter filter{x, to, {}, pad};
  std::copy_n(taps, TAPS, filter.taps);
  const int64_t bands = (to.height + ROWS - 1) / ROWS;
  parallel_for(0, to.batch * bands, 1, [&](int64_t begin, int64_t end) {
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
            epilogue.pixel(sample, row, column, [&](int c) { return filter.along_x(sums.data(), column - left, c); },
                           pixel);
          }
        }
      }
    }
  });
}

void epilogue_gradient_cpu(const Lattice& dy, const Lattice& y, const Epilogue& epilogue, float* du, float* sums,
                           float* products) {
  const int channels = y.channels;
  const int64_t size = int64_t(y.batch) * channels;
  std::vector<double> totals(2 * size);
  std::mutex mutex;
  parallel_for(0, int64_t(y.batch) * y.height, 8, [&](int64_t begin, int64_t end) {
    std::vector<float> part(2 * channels);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t sample = i / y.height;
      const int row = int(i % y.height);
      std::fill(part.begin(), part.end(), 0.0f);
      for (int column = 0; column < y.width; ++column) {
        const int64_t at = sample * y.sample + row * y.row + column * y.pixel;
        const float shift = epilogue.noise_at(sample, row, column);
        for (int c = 0; c < channels; c += LANES) {
          const Epilogue::Lane lane = epilogue.lane(sample, c);
          const Lanes value = load(y.data + at + c), change = epilogue.gradient(lane, value, load(dy.data + at + c));
          store(du + at + c, change);
          store(part.data() + c, load(part.data() + c) + change);
          float* second = part.data() + channels + c;
          store(second, load(second) + change * epilogue.product(lane, value, shift));
        }
      }
      const std::lock_guard<std::mutex> guard(mutex);
      for (int c = 0; c < channels; ++c) {
        totals[sample * channels + c] += part[c];
        totals[size + sample * channels + c] += part[channels + c];
      }
    }
  });
  for (int64_t i = 0; i < size; ++i) sums[i] = float(totals[i]), products[i] = float(totals[size + i]);
}

}  // namespace eg3d
