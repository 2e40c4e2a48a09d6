// The renderer on a GPU: a warp takes a ray (ray_by_lanes.h), a block keeps the decoder in its shared memory and goes
// on to further rays. Gradients of planes and decoder are added atomically: their last bits vary from run to run.
#include <c10/cuda/CUDAException.h>

#include <algorithm>

#include "launch.cuh"
#include "ray_by_lanes.h"

namespace eg3d {
namespace {

struct Warp {
  template <typename Phase> __device__ __forceinline__ void operator()(const Phase& phase) const {
    phase(int(threadIdx.x) % WARP);
    __syncwarp();
  }
};

// Shared memory of a block: the decoder, its gradient where wanted, then the warps' scratch.
struct Shared {
  int64_t net, sums, scratch;
  __host__ __device__ Shared(const Render& r, bool gradients, bool of_decoder)
      : net(Net::size(r.hidden)), sums(of_decoder ? net + 1 : 0),
        scratch(Scratch::size(r.num_coarse + r.num_fine, r.hidden, gradients, of_decoder)) {}
  __host__ __device__ int64_t bytes(int warps) const { return 4 * (net + sums + warps * scratch); }
};

__device__ void read_net(const Render& r, float* to) {
  for (int64_t k = threadIdx.x; k < Net::size(r.hidden); k += blockDim.x) to[k] = net_number(r, k);
}

template <typename T> __global__ void forward_kernel(const Render r) {
  extern __shared__ float memory[];
  const Shared sizes(r, false, false);
  const int warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  read_net(r, memory);
  __syncthreads();
  const Net net(memory, r.hidden);
  const Scratch scratch(memory + sizes.net + warp * sizes.scratch, r.num_coarse + r.num_fine, r.hidden);
  for (int64_t i = int64_t(blockIdx.x) * warps + warp; i < r.batch * r.rays; i += int64_t(gridDim.x) * warps)
    RayByLanes<T>(r, net, scratch, i).forward(Warp());
}

template <typename T> __global__ void backward_kernel(const Render r, const RenderGradients g) {
  extern __shared__ float memory[];
  const bool of_decoder = g.w1 != nullptr;
  const Shared sizes(r, true, of_decoder);
  const int warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  float* sums = of_decoder ? memory + sizes.net : nullptr;
  read_net(r, memory);
  for (int64_t k = threadIdx.x; k < sizes.sums; k += blockDim.x) sums[k] = 0.0f;
  __syncthreads();
  const Net net(memory, r.hidden);
  const Scratch scratch(memory + sizes.net + sizes.sums + warp * sizes.scratch, r.num_coarse + r.num_fine, r.hidden);
  for (int64_t i = int64_t(blockIdx.x) * warps + warp; i < r.batch * r.rays; i += int64_t(gridDim.x) * warps)
    RayByLanes<T>(r, net, scratch, i).backward(Warp(), g, sums);
  if (!of_decoder) return;
  __syncthreads();
  for (int64_t k = threadIdx.x; k < sizes.net; k += blockDim.x)
    if (float* to = net_gradient(r, g, k)) atomicAdd(to, sums[k]);
  if (threadIdx.x == 0) atomicAdd(g.b2, sums[sizes.net]);
}

// As many warps a block as its shared memory holds, up to four; blocks to fill the GPU a few times over.
template <typename... Arguments>
void launch(void (*kernel)(Arguments...), const Render& r, const Shared& sizes, cudaStream_t stream,
            const Arguments&... arguments) {
  int device = 0, most = 0, processors = 0;
  C10_CUDA_CHECK(cudaGetDevice(&device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  int warps = 4;
  while (warps > 1 && sizes.bytes(warps) > most) --warps;
  TORCH_CHECK(sizes.bytes(warps) <= most, "A ray of ", r.num_coarse + r.num_fine, " samples and ", r.hidden,
              " hidden units needs ", sizes.bytes(1), " bytes of shared memory; this GPU has ", most,
              ". Use fewer samples, or impl='ref'.");
  const int bytes = int(sizes.bytes(warps));
  C10_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  const int64_t blocks = std::min<int64_t>((r.batch * r.rays + warps - 1) / warps, int64_t(processors) * 16);
  if (blocks == 0) return;
  kernel<<<int(blocks), warps * WARP, bytes, stream>>>(arguments...);
}

}  // namespace

void render_cuda(const Render& r, Planes planes, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  const Shared sizes(r, false, false);
  if (planes == Planes::HALF) return launch(forward_kernel<__half>, r, sizes, queue, r);
  if (planes == Planes::BFLOAT16) return launch(forward_kernel<__nv_bfloat16>, r, sizes, queue, r);
  launch(forward_kernel<float>, r, sizes, queue, r);
}

void render_backward_cuda(const Render& r, const RenderGradients& g, Planes planes, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  const Shared sizes(r, true, g.w1 != nullptr);
  if (planes == Planes::HALF) return launch(backward_kernel<__half>, r, sizes, queue, r, g);
  if (planes == Planes::BFLOAT16) return launch(backward_kernel<__nv_bfloat16>, r, sizes, queue, r, g);
  launch(backward_kernel<float>, r, sizes, queue, r, g);
}

}  // namespace eg3d
