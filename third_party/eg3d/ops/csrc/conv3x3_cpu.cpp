// The 3x3 convolutions of a synthesis layer and their gradients in the image, by the blocks of conv3x3.h.
#include "conv3x3.h"

#include <mutex>

#include "parallel.h"

namespace eg3d {
namespace {

constexpr int64_t BLOCK = 24;  // squares that are transformed together, a multiple of the rows of a product's tile

template <class Y, class X> Memory packed(const Filters& filters, int from_y, int from_x, int step) {
  const Packed sizes(filters);
  Memory u = allocate(Y::WEIGHTS * X::WEIGHTS * sizes.point());
  parallel_for(0, filters.inputs, 16, [&](int64_t first, int64_t last) {
    pack_weights<Y, X>(filters, from_y, from_x, step, first, last, u.get());
  });
  return u;
}

// work(first square, last square, memory) for all blocks.
template <class Work> void over_blocks(const Squares& squares, const Packed& sizes, int points, const Work& work) {
  const int64_t share = (squares.count + num_threads() - 1) / num_threads();
  const int64_t size = std::min(BLOCK, share + share % 2), blocks = (squares.count + size - 1) / size;
  parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    Block block(size, sizes.inputs, sizes.columns(), points);
    for (int64_t i = begin; i < end; ++i) work(i * size, std::min(squares.count, (i + 1) * size), block);
  });
}

// Takes the last step of a gradient.
class Scaled {
 public:
  Scaled(const Scaling& scaling, const Lattice& y, float* to)
      : scaling_(scaling), y_(y), to_(to), sums_(int64_t(y.batch) * y.channels) {}

  // Sums of one block, which spans few samples.
  class Part {
   public:
    Part(Scaled& whole, int64_t first_sample, int64_t last_sample)
        : whole_(whole), first_(first_sample), sums_((last_sample - first_sample + 1) * whole.y_.channels) {}

    void operator()(const Square& at, int i, int c, const Lanes* value) {
      const Lattice& y = whole_.y_;
      const Lanes factor = load(whole_.scaling_.factor + at.sample * y.channels + c);
      Lanes total{};
      for (int j = 0; j < TILE && at.row + i < y.height && at.column + j < y.width; ++j) {
        const int64_t pixel = at.sample * y.sample + (at.row + i) * y.row + (at.column + j) * y.pixel + c;
        if (whole_.scaling_.like) total += value[j] * load(whole_.scaling_.like + pixel);
        store(whole_.to_ + pixel, factor * value[j]);
      }
      float* sum = sums_.data() + (at.sample - first_) * y.channels + c;
      store(sum, load(sum) + total);
    }

    void finish() {
      const std::lock_guard<std::mutex> guard(whole_.mutex_);
      double* total = whole_.sums_.data() + first_ * whole_.y_.channels;
      for (size_t i = 0; i < sums_.size(); ++i) total[i] += sums_[i];
    }

   private:
    Scaled& whole_;
    int64_t first_;
    std::vector<float> sums_;
  };

  void deliver() const {
    for (size_t i = 0; i < sums_.size(); ++i) scaling_.sums[i] = float(sums_[i]);
  }

 private:
  Scaling scaling_;
  Lattice y_;
  float* to_;
  std::vector<double> sums_;
  std::mutex mutex_;
};

// The four phases of a transposed convolution of stride 2: even outputs z[2i] = w[0] x[i] + w[2] x[i - 1] see two taps,
// odd ones z[2i + 1] = w[1] x[i] see one. The adjoint sums over the phases of z.
struct PhaseWeights {
  Memory even_even, even_odd, odd_even, odd_odd;

  // `up`: taps 2 and 0 meet samples i - 1 and i; otherwise taps 0 and 2 meet samples i and i + 1.
  PhaseWeights(const Filters& all, bool up) {
    const int from = up ? 2 : 0, step = up ? -2 : 2;
    even_even = packed<TwoTaps, TwoTaps>(all, from, from, step);
    even_odd = packed<TwoTaps, OneTap>(all, from, 1, step);
    odd_even = packed<OneTap, TwoTaps>(all, 1, from, step);
    odd_odd = packed<OneTap, OneTap>(all, 1, 1, step);
  }
};

// Every second pixel of a lattice, from (y, x) on.
Lattice phase_of(const Lattice& z, int y, int x) {
  return {z.data + y * z.row + x * z.pixel, z.sample, 2 * z.row, 2 * z.pixel, z.batch, (z.height - y + 1) / 2,
          (z.width - x + 1) / 2, z.channels};
}

}  // namespace

void conv3x3_cpu(const Lattice& x, const Filters& w, const Affine& affine, const Epilogue& epilogue, const Lattice& y,
                 float* to) {
  const Memory u = packed<ThreeTaps, ThreeTaps>(w, 0, 0, 1);
  const Squares squares(x.batch, x.height, x.width);
  over_blocks(squares, Packed(w), 36, [&](int64_t first, int64_t last, Block& block) {
    const auto emit = [&](const Square& at, int64_t, int i, int c, const Lanes* value) {
      const Epilogue::Lane lane = epilogue.lane(at.sample, c);
      const int row = at.row + i;
      for (int j = 0; j < TILE && row < y.height && at.column + j < y.width; ++j) {
        const int column = at.column + j;
        float* pixel = to + at.sample * y.sample + row * y.row + column * y.pixel;
        store(pixel + c, epilogue.apply(lane, value[j], epilogue.noise_at(at.sample, row, column)));
      }
    };
    convolve_block<ThreeTaps, ThreeTaps>(x, -1, -1, affine, u.get(), Packed(w), squares, first, last, w.outputs, block,
                                         emit);
  });
}

void conv3x3_gradient_cpu(const Lattice& g, const Filters& w, const Affine& affine, const Scaling& scaling,
                          const Lattice& y, float* to) {
  const Memory u = packed<ThreeTaps, ThreeTaps>(w, 0, 0, 1);
  Scaled scaled(scaling, y, to);
  const Squares squares(g.batch, g.height, g.width);
  over_blocks(squares, Packed(w), 36, [&](int64_t first, int64_t last, Block& block) {
    Scaled::Part part(scaled, squares[first].sample, squares[last - 1].sample);
    const auto emit = [&](const Square& at, int64_t, int i, int c, const Lanes* value) { part(at, i, c, value); };
    convolve_block<ThreeTaps, ThreeTaps>(g, -1, -1, affine, u.get(), Packed(w), squares, first, last, w.outputs, block,
                                         emit);
    part.finish();
  });
  scaled.deliver();
}

void conv3x3_up_cpu(const Lattice& x, const Filters& w, const Affine& affine, const Lattice& z, float* to) {
  const PhaseWeights weights(w, true);
  const Squares squares(x.batch, x.height + 1, x.width + 1);
  over_blocks(squares, Packed(w), 25, [&](int64_t first, int64_t last, Block& block) {
    const auto run = [&]<class Y, class X>(Y, X, const Memory& u) {
      constexpr int odd_y = Y::TAPS == 1, odd_x = X::TAPS == 1;
      const auto emit = [&](const Square& at, int64_t, int i, int c, const Lanes* value) {
        const int row = 2 * (at.row + i) + odd_y;
        for (int j = 0; j < TILE && row < z.height && 2 * (at.column + j) + odd_x < z.width; ++j) {
          const int column = 2 * (at.column + j) + odd_x;
          store(to + at.sample * z.sample + row * z.row + column * z.pixel + c, value[j]);
        }
      };
      convolve_block<Y, X>(x, odd_y - 1, odd_x - 1, affine, u.get(), Packed(w), squares, first, last, w.outputs, block,
                           emit);
    };
    run(TwoTaps{}, TwoTaps{}, weights.even_even);
    run(TwoTaps{}, OneTap{}, weights.even_odd);
    run(OneTap{}, TwoTaps{}, weights.odd_even);
    run(OneTap{}, OneTap{}, weights.odd_odd);
  });
}

void conv3x3_down_cpu(const Lattice& z, const Filters& w, bool padded, const Affine& affine, const Scaling& scaling,
                      const Lattice& y, float* to) {
  const PhaseWeights weights(w, false);
  Scaled scaled(scaling, y, to);
  const Squares squares(z.batch, y.height, y.width);
  over_blocks(squares, Packed(w), 25, [&](int64_t first, int64_t last, Block& block) {
    Scaled::Part part(scaled, squares[first].sample, squares[last - 1].sample);
    std::vector<float> sums((last - first) * TILE * TILE * w.outputs);
    const auto run = [&]<class Y, class X>(Y, X, const Memory& u, bool is_first, bool is_last) {
      constexpr int odd_y = Y::TAPS == 1, odd_x = X::TAPS == 1;
      const auto emit = [&](const Square& at, int64_t place, int i, int c, Lanes* value) {
        float* sum = sums.data() + (place * TILE + i) * TILE * w.outputs + c;
        for (int j = 0; j < TILE; ++j) {
          if (!is_first) value[j] += load(sum + j * w.outputs);
          if (!is_last) store(sum + j * w.outputs, value[j]);
        }
        if (is_last) part(at, i, c, value);
      };
      constexpr int even_y = 1 - odd_y, even_x = 1 - odd_x;
      const Lattice phase = padded ? phase_of(z, even_y, even_x) : phase_of(z, odd_y, odd_x);
      convolve_block<Y, X>(phase, padded ? -even_y : 0, padded ? -even_x : 0, affine,
                           u.get(), Packed(w), squares, first, last, w.outputs, block, emit);
    };
    run(TwoTaps{}, TwoTaps{}, weights.even_even, true, false);
    run(TwoTaps{}, OneTap{}, weights.even_odd, false, false);
    run(OneTap{}, TwoTaps{}, weights.odd_even, false, false);
    run(OneTap{}, OneTap{}, weights.odd_odd, false, true);
    part.finish();
  });
  scaled.deliver();
}

}  // namespace eg3d
