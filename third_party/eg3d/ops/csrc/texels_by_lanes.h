// Looking up texels by 32 lanes, and adding to their gradients: each lane has a sample, but the channels of a texel are
// read and added to by a group of eight lanes, since memory moves what lies side by side at once.
#pragma once

#include "net.h"
#include "ray.h"
#include "whole_sums.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace eg3d {

// read_texel: four neighbouring channels, read_channel: one; of planes, which nothing writes to.
#ifdef __CUDACC__
EG3D_DEVICE void read_four(const float* from, float* to) {
  const float4 v = *reinterpret_cast<const float4*>(from);
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
EG3D_DEVICE void read_texel(const float* from, float* to) {
  const float4 v = __ldg(reinterpret_cast<const float4*>(from));
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
EG3D_DEVICE void read_texel(const __half* from, float* to) {
  const uint2 v = __ldg(reinterpret_cast<const uint2*>(from));
  const float2 a = __half22float2(*reinterpret_cast<const __half2*>(&v.x));
  const float2 b = __half22float2(*reinterpret_cast<const __half2*>(&v.y));
  to[0] = a.x, to[1] = a.y, to[2] = b.x, to[3] = b.y;
}
EG3D_DEVICE void read_texel(const __nv_bfloat16* from, float* to) {  // the upper halves of floats
  const uint2 v = __ldg(reinterpret_cast<const uint2*>(from));
  to[0] = __uint_as_float(v.x << 16), to[1] = __uint_as_float(v.x & 0xffff0000u);
  to[2] = __uint_as_float(v.y << 16), to[3] = __uint_as_float(v.y & 0xffff0000u);
}
EG3D_DEVICE float read_channel(const float* from) { return __ldg(from); }
EG3D_DEVICE float read_channel(const __half* from) { return __half2float(__ldg(from)); }
EG3D_DEVICE float read_channel(const __nv_bfloat16* from) {
  return __uint_as_float(unsigned(__ldg(reinterpret_cast<const unsigned short*>(from))) << 16);
}
#else
EG3D_DEVICE void read_four(const float* from, float* to) { memcpy(to, from, 4 * sizeof(float)); }
EG3D_DEVICE void read_texel(const float* from, float* to) { read_four(from, to); }
EG3D_DEVICE float read_channel(const float* from) { return *from; }
#endif

using Channels = Own<float>[MOST];  // numbers of each lane's sample

// The four texels around a point on one plane: the first one's number in the planes, and how far the others are.
struct Footprint {
  Neighbours<float, int> x, y;
  int first, right, down;
  EG3D_DEVICE int offset(int j) const { return first + (j & 1 ? right : 0) + (j & 2 ? down : 0); }
  EG3D_DEVICE float weight(int j) const {  // of a mean over three planes
    return (j & 1 ? x.high : x.low) * (j & 2 ? y.high : y.low) * (1.0f / 3.0f);
  }
};

// Of one ray, whose samples' depths stand in shared memory.
template <typename T> class TexelsByLanes {
 public:
  EG3D_DEVICE TexelsByLanes(const Render& render, const Scratch& shared, const Warp& lanes, int64_t ray)
      : r(render), s(shared), warp(lanes), i(ray), item(i / r.rays * 3 * r.height * r.row),
        planes(static_cast<const T*>(r.planes) + item) {}

  // Mean features over the planes of samples first, first + 1, ... by lane; those from `end` on mean nothing. A lane
  // reads four channels of each sample of its group.
  EG3D_DEVICE void gather(int first, int end, Channels& x) const {
    warp.apart([&](int lane) {
      EG3D_UNROLL
      for (int c = 0; c < MOST; ++c) x[c](lane) = 0.0f;
    });
    EG3D_ROLLED
    for (int plane = 0; plane < 3; ++plane) {
      Own<Footprint> f;
      warp([&](int lane) { f(lane) = footprint(first + lane < end ? first + lane : end - 1, plane); });
      EG3D_ROLLED
      for (int j = 0; j < 4; ++j) {
        Own<int> offset;
        Own<float> weight;
        warp.apart([&](int lane) { offset(lane) = f(lane).offset(j), weight(lane) = f(lane).weight(j); });
        EG3D_UNROLL
        for (int p = 0; p < GROUP; ++p) {
          const Own<int> at = warp.of_group(offset, p);
          const Own<float> share = warp.of_group(weight, p);
          warp.apart([&](int lane) {
            float four[4];
            read_texel(planes + at(lane) + lane % GROUP * 4, four);
            EG3D_UNROLL
            for (int e = 0; e < 4; ++e) x[4 * p + e](lane) += share(lane) * four[e];
          });
        }
      }
    }
    transpose<4, 1>(warp, x);
  }

  // From the gradients of features to the planes and, through the places of the samples, to the ray. A lane takes
  // channels lane % GROUP, GROUP + lane % GROUP, ... of each sample of its group, so that neighbours add to neighbours.
  EG3D_DEVICE void spread(int first, int num, Channels& d_x, const RenderGradients& g) const {
    transpose<1, GROUP>(warp, d_x);
    EG3D_ROLLED
    for (int plane = 0; plane < 3; ++plane) {
      Own<Footprint> f;
      Own<float> along_x, along_y;
      warp([&](int lane) {
        f(lane) = footprint(first + lane < num ? first + lane : num - 1, plane);
        along_x(lane) = along_y(lane) = 0.0f;
      });
      EG3D_ROLLED
      for (int j = 0; j < 4; ++j) {
        Own<int> offset;
        Own<float> weight;
        warp.apart([&](int lane) {
          offset(lane) = f(lane).offset(j);
          weight(lane) = first + lane < num ? f(lane).weight(j) : 0.0f;
        });
        if (g.planes) add_texels(offset, weight, d_x, g);
        if (g.origins) slopes(j, f, offset, d_x, along_x, along_y);
      }
      if (!g.origins) continue;
      move(first, num, r.axes[2 * plane], along_x, g);
      move(first, num, r.axes[2 * plane + 1], along_y, g);
    }
  }

 private:
  EG3D_DEVICE Footprint footprint(int k, int plane) const {
    const int ax = r.axes[2 * plane], ay = r.axes[2 * plane + 1];
    const float t = s.depths[k];
    const float u = (r.origins[3 * i + ax] + t * r.directions[3 * i + ax]) * r.scale;
    const float v = (r.origins[3 * i + ay] + t * r.directions[3 * i + ay]) * r.scale;
    Footprint f;
    f.x = neighbours<float, int>(u, r.width), f.y = neighbours<float, int>(v, r.height);
    f.first = (plane * r.height + f.y.first) * r.row + f.x.first * MOST;
    f.right = f.x.step * MOST, f.down = f.y.step * r.row;
    return f;
  }

  EG3D_DEVICE void add_texels(const Own<int>& offset, const Own<float>& weight, const Channels& d_x,
                              const RenderGradients& g) const {
    EG3D_UNROLL
    for (int p = 0; p < GROUP; ++p) {
      const Own<int> at = warp.of_group(offset, p);
      const Own<float> share = warp.of_group(weight, p);
      warp.apart([&](int lane) {
        if (share(lane) == 0.0f) return;
        EG3D_UNROLL
        for (int e = 0; e < 4; ++e) {
          const int64_t k = item + at(lane) + e * GROUP + lane % GROUP;
          add(g.planes, g.whole_planes, k, share(lane) * d_x[e * GROUP + p](lane));
        }
      });
    }
  }

  // Adds what corner j of the footprint has of a sample's gradients in the coordinates of the plane.
  EG3D_DEVICE void slopes(int j, const Own<Footprint>& f, const Own<int>& offset, const Channels& d_x,
                          Own<float>& along_x, Own<float>& along_y) const {
    Own<float> dots[GROUP];
    EG3D_UNROLL
    for (int p = 0; p < GROUP; ++p) {
      const Own<int> at = warp.of_group(offset, p);
      warp.apart([&](int lane) {
        dots[p](lane) = 0.0f;
        EG3D_UNROLL
        for (int e = 0; e < 4; ++e)
          dots[p](lane) += d_x[e * GROUP + p](lane) * read_channel(planes + at(lane) + e * GROUP + lane % GROUP);
      });
    }
    sum_columns<GROUP / 2>(warp, dots);
    warp.apart([&](int lane) {
      const Neighbours<float, int>&x = f(lane).x, &y = f(lane).y;
      const float dot = dots[0](lane) * (1.0f / 3.0f);
      along_x(lane) += (j & 1 ? x.high_slope : x.low_slope) * (j & 2 ? y.high : y.low) * dot;
      along_y(lane) += (j & 1 ? x.high : x.low) * (j & 2 ? y.high_slope : y.low_slope) * dot;
    });
  }

  // Adds to the gradients of one axis of the ray; no other warp adds there.
  EG3D_DEVICE void move(int first, int num, int axis, const Own<float>& along, const RenderGradients& g) const {
    Own<float> origin, direction;
    warp([&](int lane) {
      origin(lane) = first + lane < num ? along(lane) : 0.0f;
      direction(lane) = first + lane < num ? along(lane) * s.depths[first + lane] : 0.0f;
    });
    const float d_origin = sum(warp, origin) * r.scale, d_direction = sum(warp, direction) * r.scale;
    warp.apart([&](int lane) {
      if (lane == 0) g.origins[3 * i + axis] += d_origin, g.directions[3 * i + axis] += d_direction;
    });
  }

  const Render& r;
  const Scratch& s;
  const Warp& warp;
  const int64_t i, item;  // the ray; the first number of its item's planes
  const T* planes;
};

}  // namespace eg3d
