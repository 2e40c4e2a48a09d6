// The decoder in the memory that the warps of a block share, and each warp's own part of that memory.
#pragma once

#include "render.h"
#include "warp.h"

namespace eg3d {

constexpr int MOST = 32;  // channels of the planes, which have exactly as many, and colours at most
constexpr int PITCH = MOST + 1;
constexpr int UNITS = 8;  // hidden units whose gradients are collected at once

EG3D_HD int64_t whole_fours(int64_t count) { return (count + 3) / 4 * 4; }  // four numbers are read at once

// Where the parts of a Net begin. Behind its numbers, gradients have that of the density's bias.
struct Places {
  int color, in_b, density, color_b, density_b;
  EG3D_HD explicit Places(int hidden)
      : color(hidden * MOST), in_b(2 * color), density(in_b + hidden), color_b(density + hidden),
        density_b(color_b + MOST) {}
};

// The decoder by hidden unit: its row of the first layer (MOST), its columns of the second (MOST colours; the density).
struct Net {
  const float *in, *color, *in_b, *density, *color_b;
  static EG3D_HD int size(int hidden) { return Places(hidden).density_b; }
  EG3D_HD Net(const float* at, int hidden) {
    const Places places(hidden);
    in = at, color = at + places.color, in_b = at + places.in_b, density = at + places.density;
    color_b = at + places.color_b;
  }
};

// Number k of the array that a Net lies in.
EG3D_DEVICE float net_number(const Render& r, int64_t k) {
  const int h = r.hidden;
  if (k < h * MOST) return r.w1[k];
  k -= h * MOST;
  if (k < h * MOST) return k % MOST < r.colors ? r.w2[(1 + k % MOST) * h + k / MOST] : 0.0f;
  k -= h * MOST;
  if (k < h) return r.b1[k];
  k -= h;
  if (k < h) return r.w2[k];
  k -= h;
  return k < r.colors ? r.b2[1 + k] : 0.0f;
}

// Where the gradient of that number goes.
EG3D_DEVICE float* net_gradient(const Render& r, const RenderGradients& g, int64_t k) {
  const int h = r.hidden;
  if (k < h * MOST) return g.w1 + k;
  k -= h * MOST;
  if (k < h * MOST) return k % MOST < r.colors ? g.w2 + (1 + k % MOST) * h + k / MOST : nullptr;
  k -= h * MOST;
  if (k < h) return g.b1 + k;
  k -= h;
  if (k < h) return g.w2 + k;
  k -= h;
  return k < r.colors ? g.b2 + 1 + k : k == MOST ? g.b2 : nullptr;
}

// What the lanes of a ray share: numbers of its samples, and where the decoder's gradients are wanted those of 32
// samples that they are made of. Arrays of hidden units hold WARP numbers for each of UNITS.
struct Scratch {
  float *hidden, *d_hidden, *features, *colors, *depths, *densities, *weights, *transmittance, *d_rows;

  static EG3D_HD int64_t staged(bool of_decoder) { return of_decoder ? 2 * WARP * (UNITS + PITCH) : 0; }
  static EG3D_HD int64_t size(int num, bool gradients, bool of_decoder) {
    return whole_fours(staged(of_decoder) + (gradients ? 5 : 4) * int64_t(num));
  }
  EG3D_HD Scratch(float* at, int num, bool of_decoder)
      : hidden(at), d_hidden(hidden + WARP * UNITS), features(d_hidden + WARP * UNITS),
        colors(features + WARP * PITCH), depths(at + staged(of_decoder)), densities(depths + num),
        weights(densities + num), transmittance(weights + num), d_rows(transmittance + num) {}
};

// A block's shared memory: the decoder, its gradients where they are floats, the warps' parts.
struct Shared {
  int64_t net, sums, scratch;
  EG3D_HD Shared(const Render& r, bool gradients, bool of_decoder, bool whole)
      : net(whole_fours(Net::size(r.hidden))), sums(of_decoder && !whole ? whole_fours(Net::size(r.hidden) + 1) : 0),
        scratch(Scratch::size(r.num_coarse + r.num_fine, gradients, of_decoder)) {}
  EG3D_HD int64_t bytes(int warps) const { return 4 * (net + sums + warps * scratch); }
};

}  // namespace eg3d
