// The gradient of a 3x3 convolution's weight by minimal filtering: products of transformed samples and gradients, summed
// over the squares of the image at every point, and transformed back once.
#include "conv3x3.h"

#include <mutex>
#include <vector>

#include "parallel.h"

namespace eg3d {
namespace {

constexpr int POINTS = ThreeTaps::POINTS;
constexpr int64_t SQUARES = 24;  // of a block

// The gradient of one square's outputs, zero outside of the image, to m[point][channel].
void transform_gradient(const Lattice& dy, const Square& at, const float* factor, const Block& block, float* to) {
  for (int c = 0; c < dy.channels; c += LANES) {
    Lanes columns[POINTS][TILE];  // [column point][row]
    const Lanes scale = load(factor + at.sample * dy.channels + c);
    for (int i = 0; i < TILE; ++i) {
      Lanes y[TILE], m[POINTS];
      for (int j = 0; j < TILE; ++j) {
        const bool inside = at.row + i < dy.height && at.column + j < dy.width;
        const float* pixel = dy.data + at.sample * dy.sample + (at.row + i) * dy.row + (at.column + j) * dy.pixel;
        y[j] = inside ? scale * load(pixel + c) : Lanes{};
      }
      ThreeTaps::outputs_adjoint(y, m);
      for (int j = 0; j < POINTS; ++j) columns[j][i] = m[j];
    }
    keep_in_memory(columns);
    for (int j = 0; j < POINTS; ++j) {
      Lanes m[POINTS];
      ThreeTaps::outputs_adjoint(columns[j], m);
      for (int i = 0; i < POINTS; ++i) store(to + (i * POINTS + j) * block.m_point + c, m[i]);
    }
  }
}

// ROWS inputs of sums += v^T m, for one panel of outputs.
template <int ROWS>
EG3D_INLINE void add_rows(const float* v, int64_t v_row, const float* m, int64_t m_row, int64_t count, float* sums,
                          int64_t columns) {
  Lanes totals[ROWS][PANEL / LANES];
  for (int i = 0; i < ROWS; ++i)
    for (int j = 0; j < PANEL / LANES; ++j) totals[i][j] = load(sums + i * columns + j * LANES);
  for (int64_t k = 0; k < count; ++k) {
    Lanes values[PANEL / LANES];
    for (int j = 0; j < PANEL / LANES; ++j) values[j] = load(m + k * m_row + j * LANES);
    for (int i = 0; i < ROWS; ++i)
      for (int j = 0; j < PANEL / LANES; ++j) totals[i][j] += v[k * v_row + i] * values[j];
  }
  for (int i = 0; i < ROWS; ++i)
    for (int j = 0; j < PANEL / LANES; ++j) store(sums + i * columns + j * LANES, totals[i][j]);
}

void add_products(Block& block, int64_t count, int inputs, int64_t columns, float* sums) {
  for (int point = 0; point < POINTS * POINTS; ++point)
    for (int64_t n = 0; n < columns; n += PANEL) {
      const float *v = block.v() + point * block.v_point, *m = block.m() + point * block.m_point + n;
      float* to = sums + int64_t(point) * inputs * columns + n;
      int i = 0;
      for (; i + 6 <= inputs; i += 6) add_rows<6>(v + i, block.v_row, m, block.m_row, count, to + i * columns, columns);
      for (; i < inputs; i += 2) add_rows<2>(v + i, block.v_row, m, block.m_row, count, to + i * columns, columns);
    }
}

// Sums of all squares, [input][output] at every point, to filters (outputs, inputs, 3, 3).
void transform_back(const float* sums, int inputs, int64_t columns, int outputs, float* filters) {
  parallel_for(0, inputs, 16, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k)
      for (int n = 0; n < outputs; n += LANES) {
        Lanes rows[3][POINTS], g[3];
        for (int i = 0; i < POINTS; ++i) {
          Lanes u[POINTS];
          for (int j = 0; j < POINTS; ++j) u[j] = load(sums + ((i * POINTS + j) * inputs + k) * columns + n);
          ThreeTaps::weights_adjoint(u, g);
          for (int x = 0; x < 3; ++x) rows[x][i] = g[x];
        }
        for (int x = 0; x < 3; ++x) {
          ThreeTaps::weights_adjoint(rows[x], g);
          for (int y = 0; y < 3; ++y)
            for (int i = 0; i < LANES; ++i) filters[((n + i) * int64_t(inputs) + k) * 9 + y * 3 + x] = g[y][i];
        }
      }
  });
}

}  // namespace

void conv3x3_weights_cpu(const Lattice& x, const Lattice& dy, const float* scale, const float* factor, float* to) {
  const Squares squares(x.batch, x.height, x.width);
  const int inputs = x.channels, outputs = dy.channels;
  const int64_t columns = (outputs + PANEL - 1) / PANEL * PANEL, blocks = (squares.count + SQUARES - 1) / SQUARES;
  std::vector<float> total(POINTS * POINTS * inputs * columns);
  std::mutex mutex;
  const Affine affine{scale, nullptr, inputs};
  parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    Block block(SQUARES, inputs, columns, POINTS * POINTS);
    std::vector<float> sums(total.size());
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * SQUARES, last = std::min(squares.count, first + SQUARES);
      for (int64_t k = first; k < last; ++k) {
        Square at = squares[k];
        transform_gradient(dy, at, factor, block, block.m() + (k - first) * block.m_row);
        at.row -= 1, at.column -= 1;
        transform_samples<ThreeTaps, ThreeTaps, false>(x, at, affine, block, block.v() + (k - first) * block.v_row);
      }
      add_products(block, last - first, inputs, columns, sums.data());
    }
    const std::lock_guard<std::mutex> guard(mutex);
    for (size_t i = 0; i < sums.size(); ++i) total[i] += sums[i];
  });
  transform_back(total.data(), inputs, columns, outputs, to);
}

}  // namespace eg3d
