// Planes with the channels of a texel beside each other, and back; and the pages they lie in.
#include "render.h"

#include <algorithm>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "parallel.h"

namespace eg3d {
namespace {

constexpr int64_t PIXELS = 64;  // of an image's row: several cache lines, which are fetched ahead

// Calls work(planes, texels, count) for runs of up to PIXELS pixels of every row: where they begin in both layouts.
template <typename Work> void by_run(const Layout& l, const Work& work) {
  const int64_t runs = (l.width + PIXELS - 1) / PIXELS;
  parallel_for(0, l.images * l.height * runs, 16, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t row = k / runs, image = row / l.height, y = row % l.height, x = k % runs * PIXELS;
      const int64_t planes = (image * l.channels * l.height + y) * l.width + x;
      work(planes, row * l.row + x * l.filled, std::min(PIXELS, l.width - x));
    }
  });
}

}  // namespace

void interleave_cpu(const float* from, float* to, const Layout& l) {
  by_run(l, [&](int64_t planes, int64_t texels, int64_t count) {
    const float* in = from + planes;
    float* out = to + texels;
    for (int64_t c = 0; c < l.channels; ++c)
      for (int64_t n = 0; n < count; ++n) out[n * l.filled + c] = in[c * l.height * l.width + n];
    for (int64_t n = 0; n < count; ++n) std::fill(out + n * l.filled + l.channels, out + (n + 1) * l.filled, 0.0f);
  });
}

void separate_cpu(const float* from, float* to, const Layout& l) {
  by_run(l, [&](int64_t planes, int64_t texels, int64_t count) {
    const float* in = from + texels;
    float* out = to + planes;
    for (int64_t c = 0; c < l.channels; ++c)
      for (int64_t n = 0; n < count; ++n) out[c * l.height * l.width + n] = in[n * l.filled + c];
  });
}

void use_large_pages(void* memory, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t LARGE = 2 << 20;
  const uintptr_t from = reinterpret_cast<uintptr_t>(memory), begin = (from + LARGE - 1) / LARGE * LARGE;
  const uintptr_t end = (from + bytes) / LARGE * LARGE;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a wish, which may be refused
#endif
}

}  // namespace eg3d
