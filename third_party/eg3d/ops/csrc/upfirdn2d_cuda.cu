#include "launch.cuh"
#include "upfirdn2d.h"

namespace eg3d {
namespace {

template <typename T, typename Index> __global__ void kernel(const Upfirdn2d args, const Index numel) {
  const Index stride = Index(gridDim.x) * blockDim.x;
  for (Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x; i < numel; i += stride)
    upfirdn2d_element<T, Index>(args, i);
}

template <typename T> void launch(const Upfirdn2d& args, cudaStream_t stream) {
  const int64_t numel = args.batch * args.channels * args.out_x * args.out_y;
  const int blocks = num_blocks(numel);
  if (fits_int32(numel))
    kernel<T, int32_t><<<blocks, THREADS, 0, stream>>>(args, int32_t(numel));
  else
    kernel<T, int64_t><<<blocks, THREADS, 0, stream>>>(args, numel);
}

}  // namespace

void upfirdn2d_cuda(const Upfirdn2d& args, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  switch (args.dtype) {
    case c10::ScalarType::Float:
      return launch<float>(args, queue);
    case c10::ScalarType::Double:
      return launch<double>(args, queue);
    case c10::ScalarType::Half:
      return launch<c10::Half>(args, queue);
    default:
      return launch<c10::BFloat16>(args, queue);
  }
}

}  // namespace eg3d
