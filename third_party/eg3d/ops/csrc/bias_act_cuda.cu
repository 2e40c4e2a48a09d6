#include "bias_act.h"
#include "launch.cuh"

namespace eg3d {
namespace {

template <typename T, typename Index> __global__ void kernel(const BiasAct args) {
  const Index stride = Index(gridDim.x) * blockDim.x;
  for (Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x; i < Index(args.numel); i += stride)
    bias_act_element<T, Index>(args, i);
}

template <typename T> void launch(const BiasAct& args, cudaStream_t stream) {
  const int blocks = num_blocks(args.numel);
  if (fits_int32(args.numel))
    kernel<T, int32_t><<<blocks, THREADS, 0, stream>>>(args);
  else
    kernel<T, int64_t><<<blocks, THREADS, 0, stream>>>(args);
}

}  // namespace

void bias_act_cuda(const BiasAct& args, void* stream) {
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
