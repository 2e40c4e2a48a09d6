// One thread per element, in strides of the grid.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <limits>

namespace eg3d {

constexpr int THREADS = 256;
constexpr int64_t MAX_BLOCKS = 65535;

inline int num_blocks(int64_t numel) { return int(std::min((numel + THREADS - 1) / THREADS, MAX_BLOCKS)); }

// Indices of 32 bits divide several times faster; the margin lets a strided loop run past the end without overflow.
inline bool fits_int32(int64_t numel) {
  return numel <= std::numeric_limits<int32_t>::max() - int64_t(THREADS) * MAX_BLOCKS;
}

}  // namespace eg3d
