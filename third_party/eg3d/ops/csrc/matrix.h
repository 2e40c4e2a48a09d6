// Products of small matrices that stay in the nearest cache, in tiles that stay in registers.
#pragma once

#include "lanes.h"

namespace eg3d {

// c = a b + bias, or c += a b where ADD: a (rows, steps) with any strides, b (steps, columns) and c (rows, columns)
// with contiguous rows; at least one step, columns a multiple of LANES.
struct Product {
  const float* a;
  int64_t a_row, a_step;
  const float* b;
  int64_t b_step;
  float* c;
  int64_t c_row;
  int rows, columns, steps;
  const float* bias;  // (columns); unused where ADD
};

template <int ROWS, int COLUMNS, bool ADD> inline void product_tile(const Product& p, int row, int column) {
  Lanes sums[ROWS][COLUMNS];
  float* c = p.c + row * p.c_row + column;
  for (int i = 0; i < ROWS; ++i)
    for (int j = 0; j < COLUMNS; ++j)
      sums[i][j] = ADD ? load(c + i * p.c_row + j * LANES) : load(p.bias + column + j * LANES);
  const float* a = p.a + row * p.a_row;
  const float* b = p.b + column;
  int steps = p.steps;
  do {  // at least one step, so that the sums never leave the registers
    Lanes values[COLUMNS];
    for (int j = 0; j < COLUMNS; ++j) values[j] = load(b + j * LANES);
    for (int i = 0; i < ROWS; ++i)
      for (int j = 0; j < COLUMNS; ++j) sums[i][j] += a[i * p.a_row] * values[j];
    a += p.a_step, b += p.b_step;
  } while (--steps > 0);
  for (int i = 0; i < ROWS; ++i)
    for (int j = 0; j < COLUMNS; ++j) store(c + i * p.c_row + j * LANES, sums[i][j]);
}

template <int COLUMNS, bool ADD> inline void product_panel(const Product& p, int column) {
  constexpr int ROWS = 6;  // with two or four vectors a row: twelve or 24 sums, which fit 16 or 32 registers
  int row = 0;
  for (; row + ROWS <= p.rows; row += ROWS) product_tile<ROWS, COLUMNS, ADD>(p, row, column);
  if (p.rows - row >= 4) product_tile<4, COLUMNS, ADD>(p, row, column), row += 4;
  if (p.rows - row >= 2) product_tile<2, COLUMNS, ADD>(p, row, column), row += 2;
  if (p.rows - row >= 1) product_tile<1, COLUMNS, ADD>(p, row, column);
}

template <bool ADD> inline void multiply(const Product& p) {
  constexpr int PANEL = LANES == 16 ? 4 : 2;
  int column = 0;
  for (; column + PANEL * LANES <= p.columns; column += PANEL * LANES) product_panel<PANEL, ADD>(p, column);
  for (; column < p.columns; column += LANES) product_panel<1, ADD>(p, column);
}

}  // namespace eg3d
