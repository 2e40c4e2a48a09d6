// Minimal filtering (Toom and Cook; Winograd 1980): four neighbouring outputs y[i] = sum_k g[k] d[i + k] of a short
// filter, with one product for each of POINTS = TAPS + 3 samples: y = A ((G g) * (B d)). G, B and A are `weights`,
// `samples` and `outputs`; a scheme for two axes is one for each.
#pragma once

#include "lanes.h"

#define EG3D_INLINE inline __attribute__((always_inline))

namespace eg3d {

constexpr int TILE = 4;  // outputs along an axis

// One tap needs no transform: four products with one weight.
struct OneTap {
  static constexpr int TAPS = 1, POINTS = 4, WEIGHTS = 1;
  static EG3D_INLINE void weights(const Lanes* g, Lanes* u) { u[0] = g[0]; }
  static EG3D_INLINE void samples(const Lanes* d, Lanes* v) {
    for (int i = 0; i < POINTS; ++i) v[i] = d[i];
  }
  static EG3D_INLINE void outputs(const Lanes* m, Lanes* y) {
    for (int i = 0; i < TILE; ++i) y[i] = m[i];
  }
};

// Points near 1 in size, and infinity, lose the fewest digits.

// The points 0, c, -c, 2c and infinity.
struct TwoTaps {
  static constexpr int TAPS = 2, POINTS = 5, WEIGHTS = 5;
  static constexpr float c = 0.75f, c2 = c * c, c3 = c * c * c;
  static EG3D_INLINE void weights(const Lanes* g, Lanes* u) {
    u[0] = g[0] * (1 / (2 * c3));
    u[1] = (g[0] + c * g[1]) * (-1 / (2 * c3));
    u[2] = (c * g[1] - g[0]) * (1 / (6 * c3));
    u[3] = (g[0] + 2 * c * g[1]) * (1 / (6 * c3));
    u[4] = g[1];
  }
  static EG3D_INLINE void samples(const Lanes* d, Lanes* v) {
    const Lanes inner = d[3] - c2 * d[1];
    v[0] = 2 * c3 * d[0] - 2 * c * d[2] + inner;
    v[1] = d[3] - c * d[2] - 2 * c2 * d[1];
    v[2] = d[3] - 3 * c * d[2] + 2 * c2 * d[1];
    v[3] = inner;
    v[4] = d[4] - c2 * d[2] - 2 * c * inner;
  }
  static EG3D_INLINE void outputs(const Lanes* m, Lanes* y) {
    const Lanes even = m[1] + m[2], odd = c * (m[1] - m[2]);
    y[0] = m[0] + even + m[3];
    y[1] = odd + 2 * c * m[3];
    y[2] = c2 * even + 4 * c2 * m[3];
    y[3] = c2 * odd + 8 * c3 * m[3] + m[4];
  }
};

// The points 0, c, -c, 1 / c, -1 / c and infinity, c^2 = 1/2.
struct ThreeTaps {
  static constexpr int TAPS = 3, POINTS = 6, WEIGHTS = 6;
  static constexpr float c = 0.70710678f, b = 1.41421356f;
  static EG3D_INLINE void weights(const Lanes* g, Lanes* u) {
    const Lanes near = (g[0] + 0.5f * g[2]) * (-2.0f / 3), far = (g[0] + 2.0f * g[2]) * (1.0f / 6);
    u[0] = g[0];
    u[1] = near - g[1] * (c * 2 / 3);
    u[2] = near + g[1] * (c * 2 / 3);
    u[3] = far + g[1] * (b / 6);
    u[4] = far - g[1] * (b / 6);
    u[5] = g[2];
  }
  static EG3D_INLINE void samples(const Lanes* d, Lanes* v) {
    const Lanes near = d[4] - 2.0f * d[2], near_odd = c * d[3] - 2 * c * d[1];
    const Lanes far = d[4] - 0.5f * d[2], far_odd = b * d[3] - b / 2 * d[1];
    v[0] = d[0] - 2.5f * d[2] + d[4];
    v[1] = near + near_odd;
    v[2] = near - near_odd;
    v[3] = far + far_odd;
    v[4] = far - far_odd;
    v[5] = d[1] - 2.5f * d[3] + d[5];
  }
  static EG3D_INLINE void outputs(const Lanes* m, Lanes* y) {
    const Lanes near = m[1] + m[2], near_odd = c * (m[1] - m[2]), far = m[3] + m[4], far_odd = b * (m[3] - m[4]);
    y[0] = m[0] + near + far;
    y[1] = near_odd + far_odd;
    y[2] = 0.5f * near + 2.0f * far;
    y[3] = 0.5f * near_odd + 2.0f * far_odd + m[5];
  }
  // The adjoints of `outputs` and `weights`.
  static EG3D_INLINE void outputs_adjoint(const Lanes* y, Lanes* m) {
    const Lanes near = y[0] + 0.5f * y[2], near_odd = c * (y[1] + 0.5f * y[3]);
    const Lanes far = y[0] + 2.0f * y[2], far_odd = b * (y[1] + 2.0f * y[3]);
    m[0] = y[0];
    m[1] = near + near_odd;
    m[2] = near - near_odd;
    m[3] = far + far_odd;
    m[4] = far - far_odd;
    m[5] = y[3];
  }
  static EG3D_INLINE void weights_adjoint(const Lanes* u, Lanes* g) {
    const Lanes near = u[1] + u[2], far = u[3] + u[4];
    g[0] = u[0] - near * (2.0f / 3) + far * (1.0f / 6);
    g[1] = (u[2] - u[1]) * (c * 2 / 3) + (u[3] - u[4]) * (b / 6);
    g[2] = (far - near) * (1.0f / 3) + u[5];
  }
};

// Keeps the compiler from moving the first half of a transform over two axes into the second: there are not enough
// registers for both, and it would spend its time on moving them out and back.
EG3D_INLINE void keep_in_memory(const void* values) { asm volatile("" : : "r"(values) : "memory"); }

// The transforms of two axes: first along each row, read by read_row(row, values), then along each column, taken by
// write_column(column, values).
template <class Y, class X, class Read, class Write> EG3D_INLINE void samples_2d(const Read& read_row, const Write& write_column) {
  Lanes rows[X::POINTS][Y::POINTS];
  for (int i = 0; i < Y::POINTS; ++i) {
    Lanes d[X::POINTS], row[X::POINTS];
    read_row(i, d);
    X::samples(d, row);
    for (int j = 0; j < X::POINTS; ++j) rows[j][i] = row[j];
    keep_in_memory(rows);
  }
  for (int j = 0; j < X::POINTS; ++j) {
    Lanes v[Y::POINTS];
    Y::samples(rows[j], v);
    write_column(j, v);
    keep_in_memory(rows);
  }
}

template <class Y, class X> EG3D_INLINE void weights_2d(const Lanes (&g)[Y::TAPS][X::TAPS],
                                                        Lanes (&u)[X::WEIGHTS][Y::WEIGHTS]) {
  Lanes rows[X::WEIGHTS][Y::TAPS];
  for (int i = 0; i < Y::TAPS; ++i) {
    Lanes row[X::WEIGHTS];
    X::weights(g[i], row);
    for (int j = 0; j < X::WEIGHTS; ++j) rows[j][i] = row[j];
  }
  for (int j = 0; j < X::WEIGHTS; ++j) Y::weights(rows[j], u[j]);
}

template <class Y, class X, class Read, class Write> EG3D_INLINE void outputs_2d(const Read& read_column, const Write& write_row) {
  Lanes rows[TILE][X::POINTS];
  for (int j = 0; j < X::POINTS; ++j) {
    Lanes m[Y::POINTS], column[TILE];
    read_column(j, m);
    Y::outputs(m, column);
    for (int i = 0; i < TILE; ++i) rows[i][j] = column[i];
    keep_in_memory(rows);
  }
  for (int i = 0; i < TILE; ++i) {
    Lanes y[TILE];
    X::outputs(rows[i], y);
    write_row(i, y);
    keep_in_memory(rows);
  }
}

}  // namespace eg3d
