// Planes with the channels of a texel beside each other, and back.
#include "render.h"

#include <algorithm>

#include "parallel.h"

namespace eg3d {
namespace {

constexpr int64_t PIXELS = 16;  // a cache line of an image's row

// Calls work(image, first, last) for runs of up to PIXELS pixels of every image.
template <typename Work> void by_line(int64_t images, int64_t pixels, const Work& work) {
  const int64_t lines = (pixels + PIXELS - 1) / PIXELS;
  parallel_for(0, images * lines, 64, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t first = k % lines * PIXELS;
      work(k / lines, first, std::min(first + PIXELS, pixels));
    }
  });
}

}  // namespace

void interleave_cpu(const float* from, float* to, int64_t images, int64_t channels, int64_t pixels, int64_t width) {
  by_line(images, pixels, [&](int64_t image, int64_t first, int64_t last) {
    const float* in = from + image * channels * pixels;
    float* out = to + image * pixels * width;
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t n = first; n < last; ++n) out[n * width + c] = in[c * pixels + n];
    for (int64_t n = first; n < last; ++n) std::fill(out + n * width + channels, out + (n + 1) * width, 0.0f);
  });
}

void separate_cpu(const float* from, float* to, int64_t images, int64_t channels, int64_t pixels, int64_t width) {
  by_line(images, pixels, [&](int64_t image, int64_t first, int64_t last) {
    const float* in = from + image * pixels * width;
    float* out = to + image * channels * pixels;
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t n = first; n < last; ++n) out[c * pixels + n] = in[n * width + c];
  });
}

}  // namespace eg3d
