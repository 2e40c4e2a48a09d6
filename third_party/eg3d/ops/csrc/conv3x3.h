// 3x3 convolutions of float images whose channels lie beside each other, by minimal filtering: the image is cut into
// squares of 4x4 outputs; blocks of them are transformed, multiplied by the transformed weights at every point, and
// transformed back, so that a block stays in the cache from its samples to its outputs.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "layer.h"
#include "winograd.h"

namespace eg3d {

constexpr int PANEL = (LANES == 16 ? 4 : 2) * LANES;  // outputs whose weights lie beside each other

// Sizes of the transformed weights of a scheme, W[point][panel][input][PANEL], with zeros after the last output.
struct Packed {
  int inputs, panels;
  explicit Packed(const Filters& filters)
      : inputs(filters.inputs), panels((filters.outputs + PANEL - 1) / PANEL) {}
  int64_t columns() const { return int64_t(panels) * PANEL; }
  int64_t point() const { return columns() * inputs; }
};

// The transformed weights of the filters' taps at rows `from_y`, `from_y` + step, ... and columns alike, into `packed`,
// for inputs first <= k < last.
template <class Y, class X>
void pack_weights(const Filters& filters, int from_y, int from_x, int step, int64_t first, int64_t last, float* packed) {
  const Packed sizes(filters);
  for (int64_t k = first; k < last; ++k) {
    for (int64_t n = 0; n < sizes.columns(); n += LANES) {
      Lanes g[Y::TAPS][X::TAPS], u[X::WEIGHTS][Y::WEIGHTS];
      for (int y = 0; y < Y::TAPS; ++y)
        for (int x = 0; x < X::TAPS; ++x)
          for (int i = 0; i < LANES; ++i)
            g[y][x][i] = n + i < filters.outputs ? filters.at(n + i, k, from_y + y * step, from_x + x * step) : 0.0f;
      weights_2d<Y, X>(g, u);
      float* to = packed + (n / PANEL * sizes.inputs + k) * PANEL + n % PANEL;
      for (int y = 0; y < Y::WEIGHTS; ++y)
        for (int x = 0; x < X::WEIGHTS; ++x) store(to + (y * X::WEIGHTS + x) * sizes.point(), u[x][y]);
    }
  }
}

// Which square: of a sample, with its first output.
struct Square {
  int64_t sample;
  int row, column;
};

// The squares that cover `height` x `width` outputs of a batch, counted row by row.
struct Squares {
  int rows, columns;
  int64_t count;
  Squares(int64_t batch, int height, int width)
      : rows((height + TILE - 1) / TILE), columns((width + TILE - 1) / TILE), count(batch * rows * columns) {}
  Square operator[](int64_t i) const {
    const int64_t line = i / columns;
    return {line / rows, int(line % rows) * TILE, int(i % columns) * TILE};
  }
};

struct Free {
  void operator()(float* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<float[], Free>;

inline Memory allocate(int64_t count) {  // of cache lines, not set
  return Memory(static_cast<float*>(std::aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64)));
}

// Memory of one thread for one block of squares.
class Block {
 public:
  Block(int64_t squares, int inputs, int64_t columns, int points)
      : v_row(inputs + LANES), m_row(columns + LANES), v_point(squares * v_row + 16), m_point(squares * m_row + 16),
        v_(allocate(points * v_point)), m_(allocate(points * m_point)), zeros_(inputs), ones_(inputs, 1.0f) {}
  float* v() { return v_.get(); }
  float* m() { return m_.get(); }
  const float* zeros() const { return zeros_.data(); }
  const float* ones() const { return ones_.data(); }

  const int64_t v_row, m_row, v_point, m_point;  // strides: odd, so that points do not meet in the cache

 private:
  Memory v_, m_;
  std::vector<float> zeros_, ones_;
};

// The samples of one square, from pixel (row, column) of the lattice on and zero outside of it, transformed to
// v[point][channel].
template <class Y, class X, bool SHIFTED>
void transform_samples(const Lattice& image, const Square& at, const Affine& affine, const Block& block, float* to) {
  const float* from[Y::POINTS][X::POINTS];
  bool inside[Y::POINTS][X::POINTS];
  for (int i = 0; i < Y::POINTS; ++i)
    for (int j = 0; j < X::POINTS; ++j) {
      const int y = at.row + i, x = at.column + j;
      inside[i][j] = y >= 0 && y < image.height && x >= 0 && x < image.width;
      const float* pixel = image.data + at.sample * image.sample + y * image.row + x * image.pixel;
      from[i][j] = inside[i][j] ? pixel : block.zeros();
    }
  const float* scale = affine.scale ? affine.scale + at.sample * affine.scale_sample : block.ones();
  const int64_t next = TILE * image.pixel;  // the next square's samples, which the processor would not guess
  for (int c = 0; c < image.channels; c += LANES) {
    const Lanes factor = load(scale + c);
    const auto read_row = [&](int i, Lanes* d) {
      for (int j = 0; j < X::POINTS; ++j) {
        d[j] = load(from[i][j] + c) * factor;
        if (SHIFTED) d[j] += inside[i][j] ? load(affine.shift + c) : Lanes{};
        if (j >= X::POINTS - TILE) __builtin_prefetch(from[i][j] + c + next);
      }
    };
    const auto write_column = [&](int j, const Lanes* v) {
      for (int i = 0; i < Y::POINTS; ++i) store(to + (i * X::POINTS + j) * block.v_point + c, v[i]);
    };
    samples_2d<Y, X>(read_row, write_column);
  }
}

// Rows `row` to `row` + ROWS of m = v w for one panel, in sums that stay in registers.
template <int ROWS> EG3D_INLINE void multiply_rows(const float* v, int64_t v_row, const float* w, float* m, int64_t m_row,
                                                   int inputs) {
  constexpr int COLUMNS = PANEL / LANES;
  Lanes sums[ROWS][COLUMNS] = {};
  for (int k = 0; k < inputs; ++k) {
    Lanes weights[COLUMNS];
    for (int j = 0; j < COLUMNS; ++j) weights[j] = load(w + int64_t(k) * PANEL + j * LANES);
    for (int i = 0; i < ROWS; ++i)
      for (int j = 0; j < COLUMNS; ++j) sums[i][j] += v[i * v_row + k] * weights[j];
  }
  for (int i = 0; i < ROWS; ++i)
    for (int j = 0; j < COLUMNS; ++j) store(m + i * m_row + j * LANES, sums[i][j]);
}

// m = v w for one panel: v (count, inputs), w (inputs, PANEL).
inline void multiply_panel(const float* v, int64_t v_row, const float* w, float* m, int64_t m_row, int inputs,
                           int64_t count) {
  int64_t i = 0;
  for (; i + 6 <= count; i += 6) multiply_rows<6>(v + i * v_row, v_row, w, m + i * m_row, m_row, inputs);
  for (; i + 2 <= count; i += 2) multiply_rows<2>(v + i * v_row, v_row, w, m + i * m_row, m_row, inputs);
  for (; i < count; ++i) multiply_rows<1>(v + i * v_row, v_row, w, m + i * m_row, m_row, inputs);
}

// The products of `count` squares at every point.
template <class Y, class X>
void multiply_points(const float* packed, const Packed& sizes, int64_t count, Block& block) {
  for (int i = 0; i < Y::POINTS; ++i)
    for (int j = 0; j < X::POINTS; ++j) {
      const int point = i * X::POINTS + j;
      const int weights = (Y::WEIGHTS == 1 ? 0 : i) * X::WEIGHTS + (X::WEIGHTS == 1 ? 0 : j);
      for (int panel = 0; panel < sizes.panels; ++panel)
        multiply_panel(block.v() + point * block.v_point, block.v_row,
                       packed + weights * sizes.point() + int64_t(panel) * sizes.inputs * PANEL,
                       block.m() + point * block.m_point + panel * PANEL, block.m_row, sizes.inputs, count);
    }
}

// One phase of a convolution for the squares first <= i < last: their samples start `origin` pixels beside their
// outputs. emit(square, its place in the block, row, channel, outputs[4]) takes the sums, a row of a square at a time.
template <class Y, class X, class Emit>
void convolve_block(const Lattice& image, int origin_y, int origin_x, const Affine& affine, const float* packed,
                    const Packed& sizes, const Squares& squares, int64_t first, int64_t last, int outputs,
                    Block& block, const Emit& emit) {
  for (int64_t i = first; i < last; ++i) {
    Square at = squares[i];
    at.row += origin_y, at.column += origin_x;
    float* to = block.v() + (i - first) * block.v_row;
    if (affine.shift) transform_samples<Y, X, true>(image, at, affine, block, to);
    else transform_samples<Y, X, false>(image, at, affine, block, to);
  }
  multiply_points<Y, X>(packed, sizes, last - first, block);
  for (int64_t i = first; i < last; ++i) {
    const float* from = block.m() + (i - first) * block.m_row;
    const Square at = squares[i];
    for (int c = 0; c < outputs; c += LANES) {
      const auto read_column = [&](int j, Lanes* m) {
        for (int k = 0; k < Y::POINTS; ++k) m[k] = load(from + (k * X::POINTS + j) * block.m_point + c);
      };
      outputs_2d<Y, X>(read_column, [&](int row, Lanes* y) { emit(at, i - first, row, c, y); });
    }
  }
}

}  // namespace eg3d
