// at::parallel_for behind a plain function, so that kernels need not read PyTorch's headers, which takes longer than
// compiling most of them; defined in library.cpp.
#pragma once

#include <cstdint>

namespace eg3d {

int num_threads();

void parallel_for(int64_t begin, int64_t end, int64_t grain, void (*call)(const void*, int64_t, int64_t),
                  const void* work);

// Calls work(first, last) for parts of [begin, end), each by one thread.
template <typename Work> void parallel_for(int64_t begin, int64_t end, int64_t grain, const Work& work) {
  const auto call = [](const void* some, int64_t first, int64_t last) {
    (*static_cast<const Work*>(some))(first, last);
  };
  parallel_for(begin, end, grain, call, &work);
}

}  // namespace eg3d
