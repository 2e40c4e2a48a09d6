// The 3x3 convolutions of conv3x3.h as operators: x and y are (B, C, H, W) with channels last.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <mutex>

#include "conv3x3.h"
#include "layer.h"
#include "pixels.h"

namespace eg3d {
namespace {

constexpr int64_t BLOCK = 24;  // squares that are transformed together, a multiple of the rows of a product's tile

Filters filters(const at::Tensor& w, bool flip, const at::Tensor& x) {
  check(w, {w.size(0), x.size(1), 3, 3}, "w");
  TORCH_CHECK(w.size(0) % LANES == 0, "w has ", w.size(0), " outputs, expected a multiple of ", LANES);
  return {w.const_data_ptr<float>(), w.stride(0), w.stride(1), w.stride(2), w.stride(3), int(w.size(0)),
          int(w.size(1)), flip};
}

template <class Y, class X>
at::Tensor packed(const Filters& filters, int from_y, int from_x, int step, const at::Tensor& x) {
  const Packed sizes(filters);
  at::Tensor u = at::empty({Y::WEIGHTS * X::WEIGHTS * sizes.point()}, x.options().memory_format(at::MemoryFormat::Contiguous));
  float* to = u.mutable_data_ptr<float>();
  at::parallel_for(0, filters.inputs, 16, [&](int64_t first, int64_t last) {
    pack_weights<Y, X>(filters, from_y, from_x, step, first, last, to);
  });
  return u;
}

// work(first square, last square, memory) for all blocks.
template <class Work> void over_blocks(const Squares& squares, const Packed& sizes, int points, const Work& work) {
  const int64_t share = (squares.count + at::get_num_threads() - 1) / at::get_num_threads();
  const int64_t size = std::min(BLOCK, share + share % 2), blocks = (squares.count + size - 1) / size;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    Block block(size, sizes.inputs, sizes.columns(), points);
    for (int64_t i = begin; i < end; ++i) work(i * size, std::min(squares.count, (i + 1) * size), block);
  });
}

Affine affine(const at::Tensor& scale, const Maybe& shift) {
  return {scale.const_data_ptr<float>(), shift ? shift->const_data_ptr<float>() : nullptr, scale.size(1)};
}

at::Tensor conv3x3(const at::Tensor& x_any, const at::Tensor& w, bool flip, const Maybe& scale_any,
                   const Maybe& shift, const Maybe& factor, const Maybe& noise, const Maybe& bias, const Maybe& slope,
                   double gain, double clamp) {
  const at::Tensor x = pixels_of(x_any), scale = given(scale_any, {x.size(0), x.size(1)}, 1.0f, x, "scale");
  if (shift) check(*shift, {x.size(1)}, "shift");
  const Filters all = filters(w, flip, x);
  const at::Tensor u = packed<ThreeTaps, ThreeTaps>(all, 0, 0, 1, x);
  at::Tensor y = image_like(x, all.outputs, x.size(2), x.size(3));
  const Layer layer(y, factor, noise, bias, slope, gain, clamp);
  const Epilogue& epilogue = layer.epilogue;
  const Lattice from = lattice(x), to = lattice(y);
  const Squares squares(x.size(0), from.height, from.width);
  float* out = y.mutable_data_ptr<float>();
  over_blocks(squares, Packed(all), 36, [&](int64_t first, int64_t last, Block& block) {
    const auto emit = [&](const Square& at, int64_t, int i, int c, const Lanes* value) {
      const Epilogue::Lane lane = epilogue.lane(at.sample, c);
      const int row = at.row + i;
      for (int j = 0; j < TILE && row < to.height && at.column + j < to.width; ++j) {
        const int column = at.column + j;
        float* pixel = out + at.sample * to.sample + row * to.row + column * to.pixel;
        store(pixel + c, epilogue.apply(lane, value[j], epilogue.noise_at(at.sample, row, column)));
      }
    };
    convolve_block<ThreeTaps, ThreeTaps>(from, -1, -1, affine(scale, shift), u.const_data_ptr<float>(), Packed(all),
                                         squares, first, last, all.outputs, block, emit);
  });
  return y;
}

// The last step of a gradient: y = factor v, and sum(v like) over the pixels of a sample.
class Scaled {
 public:
  Scaled(at::Tensor& y, const Maybe& factor_any, const Maybe& like_any)
      : to_(lattice(y)), out_(y.mutable_data_ptr<float>()),
        factor_(given(factor_any, {y.size(0), y.size(1)}, 1.0f, y, "factor")),
        sums_(at::zeros({y.size(0), y.size(1)}, at::kDouble)), factor_data_(factor_.const_data_ptr<float>()) {
    if (!like_any) return;
    check(*like_any, y.sizes(), "x");
    like_ = pixels_of(*like_any);
    like_data_ = like_.const_data_ptr<float>();
  }

  // Sums of one block, which spans few samples.
  class Part {
   public:
    Part(Scaled& whole, int64_t first_sample, int64_t last_sample)
        : whole_(whole), first_(first_sample), sums_((last_sample - first_sample + 1) * whole.to_.channels) {}

    void operator()(const Square& at, int i, int c, const Lanes* value) {
      const Lattice& to = whole_.to_;
      const Lanes factor = load(whole_.factor_data_ + at.sample * to.channels + c);
      Lanes total{};
      for (int j = 0; j < TILE && at.row + i < to.height && at.column + j < to.width; ++j) {
        const int64_t pixel = at.sample * to.sample + (at.row + i) * to.row + (at.column + j) * to.pixel + c;
        if (whole_.like_data_) total += value[j] * load(whole_.like_data_ + pixel);
        store(whole_.out_ + pixel, factor * value[j]);
      }
      float* sum = sums_.data() + (at.sample - first_) * to.channels + c;
      store(sum, load(sum) + total);
    }

    void finish() {
      const std::lock_guard<std::mutex> guard(whole_.mutex_);
      double* total = whole_.sums_.mutable_data_ptr<double>() + first_ * whole_.to_.channels;
      for (size_t i = 0; i < sums_.size(); ++i) total[i] += sums_[i];
    }

   private:
    Scaled& whole_;
    int64_t first_;
    std::vector<float> sums_;
  };

  at::Tensor sums() const { return sums_.to(at::kFloat); }

 private:
  Lattice to_;
  float* out_;
  at::Tensor factor_, like_, sums_;
  const float* factor_data_;
  const float* like_data_ = nullptr;
  std::mutex mutex_;
};

std::tuple<at::Tensor, at::Tensor> conv3x3_gradient(const at::Tensor& g_any, const at::Tensor& w, bool flip,
                                                    const Maybe& scale_any, const Maybe& factor, const Maybe& like) {
  const at::Tensor g = pixels_of(g_any), scale = given(scale_any, {g.size(0), g.size(1)}, 1.0f, g, "scale");
  const Filters all = filters(w, flip, g);
  const at::Tensor u = packed<ThreeTaps, ThreeTaps>(all, 0, 0, 1, g);
  at::Tensor y = image_like(g, all.outputs, g.size(2), g.size(3));
  Scaled scaled(y, factor, like);
  const Lattice from = lattice(g);
  const Squares squares(g.size(0), from.height, from.width);
  over_blocks(squares, Packed(all), 36, [&](int64_t first, int64_t last, Block& block) {
    Scaled::Part part(scaled, squares[first].sample, squares[last - 1].sample);
    const auto emit = [&](const Square& at, int64_t, int i, int c, const Lanes* value) { part(at, i, c, value); };
    convolve_block<ThreeTaps, ThreeTaps>(from, -1, -1, affine(scale, {}), u.const_data_ptr<float>(), Packed(all),
                                         squares, first, last, all.outputs, block, emit);
    part.finish();
  });
  return {y, scaled.sums()};
}

// The four phases of a transposed convolution of stride 2: even outputs z[2i] = w[0] x[i] + w[2] x[i - 1] see two taps,
// odd ones z[2i + 1] = w[1] x[i] see one. The adjoint sums over the phases of z.
struct PhaseWeights {
  at::Tensor even_even, even_odd, odd_even, odd_odd;

  // `up`: taps 2 and 0 meet samples i - 1 and i; otherwise taps 0 and 2 meet samples i and i + 1.
  PhaseWeights(const Filters& all, bool up, const at::Tensor& x) {
    const int from = up ? 2 : 0, step = up ? -2 : 2;
    even_even = packed<TwoTaps, TwoTaps>(all, from, from, step, x);
    even_odd = packed<TwoTaps, OneTap>(all, from, 1, step, x);
    odd_even = packed<OneTap, TwoTaps>(all, 1, from, step, x);
    odd_odd = packed<OneTap, OneTap>(all, 1, 1, step, x);
  }
};

at::Tensor conv3x3_up(const at::Tensor& x_any, const at::Tensor& w, bool flip, const Maybe& scale_any) {
  const at::Tensor x = pixels_of(x_any), scale = given(scale_any, {x.size(0), x.size(1)}, 1.0f, x, "scale");
  const Filters all = filters(w, flip, x);
  const PhaseWeights weights(all, true, x);
  at::Tensor z = image_like(x, all.outputs, 2 * x.size(2) + 1, 2 * x.size(3) + 1);
  const Lattice from = lattice(x), to = lattice(z);
  const Squares squares(x.size(0), from.height + 1, from.width + 1);
  float* out = z.mutable_data_ptr<float>();
  over_blocks(squares, Packed(all), 25, [&](int64_t first, int64_t last, Block& block) {
    const auto run = [&]<class Y, class X>(Y, X, const at::Tensor& u) {
      constexpr int odd_y = Y::TAPS == 1, odd_x = X::TAPS == 1;
      const auto emit = [&](const Square& at, int64_t, int i, int c, const Lanes* value) {
        const int row = 2 * (at.row + i) + odd_y;
        for (int j = 0; j < TILE && row < to.height && 2 * (at.column + j) + odd_x < to.width; ++j) {
          const int column = 2 * (at.column + j) + odd_x;
          store(out + at.sample * to.sample + row * to.row + column * to.pixel + c, value[j]);
        }
      };
      convolve_block<Y, X>(from, odd_y - 1, odd_x - 1, affine(scale, {}), u.const_data_ptr<float>(), Packed(all),
                           squares, first, last, all.outputs, block, emit);
    };
    run(TwoTaps{}, TwoTaps{}, weights.even_even);
    run(TwoTaps{}, OneTap{}, weights.even_odd);
    run(OneTap{}, TwoTaps{}, weights.odd_even);
    run(OneTap{}, OneTap{}, weights.odd_odd);
  });
  return z;
}

// Every second pixel of a lattice, from (y, x) on.
Lattice phase_of(const Lattice& z, int y, int x) {
  return {z.data + y * z.row + x * z.pixel, z.sample, 2 * z.row, 2 * z.pixel, (z.height - y + 1) / 2,
          (z.width - x + 1) / 2, z.channels};
}

// `padded`: z lies behind a row and a column of zeros.
std::tuple<at::Tensor, at::Tensor> conv3x3_down(const at::Tensor& z_any, const at::Tensor& w, bool flip, bool padded,
                                                const Maybe& scale_any, const Maybe& factor, const Maybe& like) {
  const at::Tensor z = pixels_of(z_any), scale = given(scale_any, {z.size(0), z.size(1)}, 1.0f, z, "scale");
  TORCH_CHECK(z.size(2) % 2 != padded && z.size(3) % 2 != padded && z.size(2) > 1 && z.size(3) > 1,
              "z has to be of odd size, padding included");
  const Filters all = filters(w, flip, z);
  const PhaseWeights weights(all, false, z);
  at::Tensor y = image_like(z, all.outputs, z.size(2) / 2, z.size(3) / 2);
  Scaled scaled(y, factor, like);
  const Lattice from = lattice(z);
  const Squares squares(z.size(0), int(y.size(2)), int(y.size(3)));
  over_blocks(squares, Packed(all), 25, [&](int64_t first, int64_t last, Block& block) {
    Scaled::Part part(scaled, squares[first].sample, squares[last - 1].sample);
    std::vector<float> sums((last - first) * TILE * TILE * all.outputs);
    const auto run = [&]<class Y, class X>(Y, X, const at::Tensor& u, bool is_first, bool is_last) {
      constexpr int odd_y = Y::TAPS == 1, odd_x = X::TAPS == 1;
      const auto emit = [&](const Square& at, int64_t place, int i, int c, Lanes* value) {
        float* sum = sums.data() + (place * TILE + i) * TILE * all.outputs + c;
        for (int j = 0; j < TILE; ++j) {
          if (!is_first) value[j] += load(sum + j * all.outputs);
          if (!is_last) store(sum + j * all.outputs, value[j]);
        }
        if (is_last) part(at, i, c, value);
      };
      constexpr int even_y = 1 - odd_y, even_x = 1 - odd_x;
      const Lattice phase = padded ? phase_of(from, even_y, even_x) : phase_of(from, odd_y, odd_x);
      convolve_block<Y, X>(phase, padded ? -even_y : 0, padded ? -even_x : 0, affine(scale, {}),
                           u.const_data_ptr<float>(), Packed(all), squares, first, last, all.outputs, block, emit);
    };
    run(TwoTaps{}, TwoTaps{}, weights.even_even, true, false);
    run(TwoTaps{}, OneTap{}, weights.even_odd, false, false);
    run(OneTap{}, TwoTaps{}, weights.odd_even, false, false);
    run(OneTap{}, OneTap{}, weights.odd_odd, false, true);
    part.finish();
  });
  return {y, scaled.sums()};
}

}  // namespace
}  // namespace eg3d

TORCH_LIBRARY_FRAGMENT(eg3d_cpu, module) {
  module.def(
      "conv3x3(Tensor x, Tensor w, bool flip, Tensor? scale, Tensor? shift, Tensor? factor, Tensor? noise, "
      "Tensor? bias, Tensor? slope, float gain, float clamp) -> Tensor", &eg3d::conv3x3);
  module.def(
      "conv3x3_gradient(Tensor g, Tensor w, bool flip, Tensor? scale, Tensor? factor, Tensor? like)"
      " -> (Tensor, Tensor)", &eg3d::conv3x3_gradient);
  module.def("conv3x3_up(Tensor x, Tensor w, bool flip, Tensor? scale) -> Tensor", &eg3d::conv3x3_up);
  module.def(
      "conv3x3_down(Tensor z, Tensor w, bool flip, bool padded, Tensor? scale, Tensor? factor, Tensor? like)"
      " -> (Tensor, Tensor)", &eg3d::conv3x3_down);
  module.def("conv3x3_weights(Tensor x, Tensor dy, Tensor? scale, Tensor? factor) -> Tensor", &eg3d::conv3x3_weights);
  module.def(
      "filter_image(Tensor x, float[] taps, int pad, int[2] size, Tensor? factor, Tensor? noise, Tensor? bias, "
      "Tensor? slope, float gain, float clamp) -> Tensor", &eg3d::filter_image);
  module.def(
      "epilogue_gradient(Tensor dy, Tensor y, Tensor? noise, Tensor? bias, Tensor? slope, float gain, float clamp)"
      " -> (Tensor, Tensor, Tensor)", &eg3d::epilogue_gradient);
}
