// The renderer on a GPU: a warp takes a ray (ray_by_lanes.h), a block keeps the decoder in its shared memory and goes
// on to further rays. Gradients of planes and decoder are added atomically: as floats, whose last bits vary from run to
// run, or as whole numbers, where deterministic algorithms are wanted.
#include <c10/cuda/CUDAException.h>

#include <algorithm>

#include "launch.cuh"
#include "ray_by_lanes.h"

namespace eg3d {
namespace {

// Most warps of a block, which leave 96 and 168 registers a lane, on GPUs that have 65,536.
constexpr int FORWARD_WARPS = 20, BACKWARD_WARPS = 12;

__device__ void read_net(const Render& r, float* to) {
  for (int64_t k = threadIdx.x; k < Net::size(r.hidden); k += blockDim.x) to[k] = net_number(r, k);
}

// work(ray) for the block's share of the rays; `memory` is where the warps' parts begin.
template <typename T, typename Work>
__device__ __forceinline__ void for_each_ray(const Render& r, const Net& net, const Shared& sizes, float* memory,
                                             bool of_decoder, const Work& work) {
  const int number = threadIdx.x / WARP, warps = blockDim.x / WARP;
  const Warp warp;
  const Scratch scratch(memory + number * sizes.scratch, r.num_coarse + r.num_fine, of_decoder);
  for (int64_t i = int64_t(blockIdx.x) * warps + number; i < r.batch * r.rays; i += int64_t(gridDim.x) * warps)
    work(RayByLanes<T>(r, net, scratch, warp, i));
}

template <typename T> __global__ void __launch_bounds__(FORWARD_WARPS* WARP, 1) forward_kernel(const Render r) {
  extern __shared__ __align__(16) float memory[];
  const Shared sizes(r, false, false, false);
  read_net(r, memory);
  __syncthreads();
  const Net net(memory, r.hidden);
  for_each_ray<T>(r, net, sizes, memory + sizes.net, false, [](const RayByLanes<T>& ray) { ray.forward(); });
}

template <typename T>
__global__ void __launch_bounds__(BACKWARD_WARPS* WARP, 1) backward_kernel(const Render r, const RenderGradients g) {
  extern __shared__ __align__(16) float memory[];
  const bool of_decoder = g.w1 != nullptr;
  const Shared sizes(r, true, of_decoder, g.whole_net.most);
  float* sums = memory + sizes.net;  // none of whole numbers, which go to global memory
  read_net(r, memory);
  for (int64_t k = threadIdx.x; k < sizes.sums; k += blockDim.x) sums[k] = 0.0f;
  __syncthreads();
  const Net net(memory, r.hidden);
  for_each_ray<T>(r, net, sizes, memory + sizes.net + sizes.sums, of_decoder,
                  [&](const RayByLanes<T>& ray) { ray.backward(g, sums); });
  if (sizes.sums == 0) return;
  __syncthreads();
  for (int64_t k = threadIdx.x; k <= Net::size(r.hidden); k += blockDim.x)
    if (float* to = net_gradient(r, g, k)) atomicAdd(to, sums[k]);
}

__global__ void read_kernel(const Render r, const RenderGradients g) {
  const int64_t all = num_whole_sums(r, g), stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; k < all; k += stride) read_whole_sum(r, g, k);
}

// The number of warps a block with which most warps run at once, and as many blocks as run at once: each then goes
// through its rays, and none waits for another to end.
template <typename... Arguments>
void launch(void (*kernel)(Arguments...), int most_warps, const Render& r, const Shared& sizes, cudaStream_t stream,
            const Arguments&... arguments) {
  if (r.batch * r.rays == 0) return;
  int device = 0, most = 0, processors = 0, warps = 0, blocks = 0;
  C10_CUDA_CHECK(cudaGetDevice(&device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  C10_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
  for (int tried = 1; tried <= most_warps && sizes.bytes(tried) <= most; ++tried) {
    int fit = 0;
    C10_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fit, kernel, tried * WARP, sizes.bytes(tried)));
    if (fit * tried >= blocks * warps && fit > 0) warps = tried, blocks = fit;
  }
  TORCH_CHECK(warps > 0, "A ray of ", r.num_coarse + r.num_fine, " samples and ", r.hidden, " hidden units needs ",
              sizes.bytes(1), " bytes of shared memory; this GPU has ", most, ". Use fewer samples, or impl='ref'.");
  const int64_t needed = (r.batch * r.rays + warps - 1) / warps, running = int64_t(processors) * blocks;
  kernel<<<int(std::min(needed, running)), warps * WARP, sizes.bytes(warps), stream>>>(arguments...);
}

}  // namespace

void render_cuda(const Render& r, Planes planes, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  const Shared sizes(r, false, false, false);
  if (planes == Planes::HALF) return launch(forward_kernel<__half>, FORWARD_WARPS, r, sizes, queue, r);
  if (planes == Planes::BFLOAT16) return launch(forward_kernel<__nv_bfloat16>, FORWARD_WARPS, r, sizes, queue, r);
  launch(forward_kernel<float>, FORWARD_WARPS, r, sizes, queue, r);
}

void render_backward_cuda(const Render& r, const RenderGradients& g, Planes planes, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  const Shared sizes(r, true, g.w1 != nullptr, g.whole_net.most);
  if (planes == Planes::HALF) return launch(backward_kernel<__half>, BACKWARD_WARPS, r, sizes, queue, r, g);
  if (planes == Planes::BFLOAT16) return launch(backward_kernel<__nv_bfloat16>, BACKWARD_WARPS, r, sizes, queue, r, g);
  launch(backward_kernel<float>, BACKWARD_WARPS, r, sizes, queue, r, g);
}

void read_whole_sums_cuda(const Render& r, const RenderGradients& g, void* stream) {
  const int64_t all = num_whole_sums(r, g);
  if (all > 0) read_kernel<<<num_blocks(all), THREADS, 0, static_cast<cudaStream_t>(stream)>>>(r, g);
}

int64_t num_whole_sums_of_decoder(const Render& r) { return Net::size(r.hidden) + 1; }

}  // namespace eg3d
