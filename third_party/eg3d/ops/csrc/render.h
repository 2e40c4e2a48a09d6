// A render of three planes along rays, as the library hands it to the kernels.
#pragma once

#include <cstdint>

namespace eg3d {

// Sums in whole numbers of a small unit, which are the same in whatever order numbers are added. A first pass finds the
// largest number, a second one adds.
struct WholeSums {
  int64_t* to;   // null in the first pass
  int32_t* most; // the bits of the largest magnitude; null for sums of floats
  int added;     // log2 of how many numbers one sum takes at most
};

// Gradients of a render's results, and where to add those of its inputs; null where one is not wanted.
struct RenderGradients {
  const float *features, *depth, *total;  // of the results; features are null for a render of depth alone
  float* planes;                          // as Render.planes, zero at the start, as are the following
  float *origins, *directions;
  float *w1, *b1, *w2, *b2;
  WholeSums whole_planes, whole_net;  // in place of `planes` and of the decoder's, on a GPU, laid out as `Net`
};

// Arrays are contiguous, and float32 but for planes on a GPU; a "ray" counts over batch and rays of an item.
struct Render {
  const void* planes;           // (batch, 3, height, width, channels), rows of texels `row` numbers apart
  const float *origins, *directions;  // (batch, rays, 3)
  const float* coarse;          // (batch, rays, num_coarse) depths
  const float* fine;            // (batch, rays, num_fine) uniforms, or depths where `fine_is_depth`
  const float *w1, *b1;         // (hidden, channels), (hidden)
  const float *w2, *b2;         // (1 + colors, hidden), (1 + colors); the density comes first
  int64_t batch, rays;
  int num_coarse, num_fine, height, width, channels, hidden, colors;
  int row;                      // `width` texels and room behind them
  int axes[6];                  // for each plane the coordinates along its width and its height
  float scale;                  // 2 / side of the box
  bool fine_is_depth;
  float* features;              // (batch, rays, colors), or null for depth alone
  float *depth, *total, *limits;  // (batch, rays), twice; (batch, rays, 2): the first and the last depth
};

// Planes (images, channels, height, width), and with the channels of a texel beside each other: rows of `row` numbers
// with `width` texels of `filled` channels.
struct Layout {
  int64_t images, channels, height, width, filled, row;
};

// To texels, filled up by zeros; and back, without what was filled.
void interleave_cpu(const float* from, float* to, const Layout& layout);
void separate_cpu(const float* from, float* to, const Layout& layout);

// Asks for large pages in memory that has not been written yet, if it has room for them: texels lie far from each
// other, and small pages would be looked up again for nearly every one.
void use_large_pages(void* memory, int64_t bytes);

void render_cpu(const Render& args);
void render_backward_cpu(const Render& args, const RenderGradients& gradients);

int64_t num_whole_sums_of_decoder(const Render& args);

enum class Planes { FLOAT, HALF, BFLOAT16 };  // their type

void render_cuda(const Render& args, Planes planes, void* stream);
void render_backward_cuda(const Render& args, const RenderGradients& gradients, Planes planes, void* stream);
void read_whole_sums_cuda(const Render& args, const RenderGradients& gradients, void* stream);  // after both passes

// The GPU's program on a CPU, for tests.
void render_lanes(const Render& args);
void render_backward_lanes(const Render& args, const RenderGradients& gradients);
void read_whole_sums_lanes(const Render& args, const RenderGradients& gradients);

}  // namespace eg3d
