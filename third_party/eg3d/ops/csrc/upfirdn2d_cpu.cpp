#include "upfirdn2d.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "parallel.h"

namespace eg3d {
namespace {

template <typename T> void by_element(const Upfirdn2d& args) {
  const int64_t numel = args.batch * args.channels * args.out_x * args.out_y;
  parallel_for(0, numel, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) upfirdn2d_element<T, int64_t>(args, i);
  });
}

// One tap along a row: sum[first_out + n * step_out] += w * x[first_in + n * step_in] for n < count.
struct Tap {
  int offset, first_out, first_in, count;
};

// The taps that meet a row, with the range where they stay inside of it.
std::vector<Tap> row_taps(const Upfirdn2d& args, int step_out, int step_in) {
  std::vector<Tap> taps;
  for (int k = 0; k < args.taps_x; ++k) {
    for (int out = 0; out < std::min(step_out, args.out_x); ++out) {
      const int q = out * args.down_x - args.pad_x + k;
      if (q % args.up_x != 0) continue;
      const int in = q / args.up_x, skip = in < 0 ? (-in + step_in - 1) / step_in : 0;
      const int first_out = out + skip * step_out, first_in = in + skip * step_in;
      if (first_out >= args.out_x || first_in >= args.in_x) continue;
      const int count = std::min((args.out_x - 1 - first_out) / step_out, (args.in_x - 1 - first_in) / step_in) + 1;
      taps.push_back({args.flip ? k : args.taps_x - 1 - k, first_out, first_in, count});
    }
  }
  return taps;
}

template <int OUT, int IN> void add_steps(float* sum, const float* x, float w, int count) {
  for (int n = 0; n < count; ++n) sum[n * OUT] += w * x[n * IN];
}

void add(float* sum, const float* x, float w, int count, int step_out, int step_in) {
  if (step_out == 1 && step_in == 1) return add_steps<1, 1>(sum, x, w, count);
  if (step_out == 2 && step_in == 1) return add_steps<2, 1>(sum, x, w, count);
  if (step_out == 1 && step_in == 2) return add_steps<1, 2>(sum, x, w, count);
  for (int n = 0; n < count; ++n) sum[n * step_out] += w * x[n * step_in];
}

// Row `out_y` of a plane: every tap is added to the whole row at once, in loops the compiler makes vectors of.
void output_row(const Upfirdn2d& args, const float* x, float* y, int out_y, const std::vector<Tap>& taps) {
  const int shared = std::gcd(args.up_x, args.down_x);
  const int step_out = args.up_x / shared, step_in = args.down_x / shared;
  const int q = out_y * args.down_y - args.pad_y, first = first_tap(q, args.up_y);
  std::fill(y, y + args.out_x, 0.0f);
  int row = (q + first) / args.up_y;
  for (int ky = first; ky < args.taps_y; ky += args.up_y, ++row) {
    if (row < 0 || row >= args.in_y) continue;
    const float* f = args.f + (args.flip ? ky : args.taps_y - 1 - ky) * args.taps_x;
    for (const Tap& tap : taps) {
      const float w = float(args.gain) * f[tap.offset];
      add(y + tap.first_out, x + row * args.x_strides[2] + tap.first_in, w, tap.count, step_out, step_in);
    }
  }
}

// Float images with contiguous rows.
void by_row(const Upfirdn2d& args) {
  const int shared = std::gcd(args.up_x, args.down_x);
  const std::vector<Tap> taps = row_taps(args, args.up_x / shared, args.down_x / shared);
  const int64_t rows = args.batch * args.channels * args.out_y;
  parallel_for(0, rows, std::max<int64_t>(1, 4096 / args.out_x), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t plane = i / args.out_y, n = plane / args.channels, c = plane % args.channels;
      const float* x = static_cast<const float*>(args.x) + n * args.x_strides[0] + c * args.x_strides[1];
      output_row(args, x, static_cast<float*>(args.y) + i * args.out_x, int(i % args.out_y), taps);
    }
  });
}

}  // namespace

void upfirdn2d_cpu(const Upfirdn2d& args) {
  switch (args.dtype) {
    case c10::ScalarType::Float:
      return args.x_strides[3] == 1 ? by_row(args) : by_element<float>(args);
    case c10::ScalarType::Double:
      return by_element<double>(args);
    case c10::ScalarType::Half:
      return by_element<c10::Half>(args);
    default:
      return by_element<c10::BFloat16>(args);
  }
}

}  // namespace eg3d
