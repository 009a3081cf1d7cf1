// Sums over the threads of a block, in a fixed tree.
#pragma once

#include <cuda_runtime.h>

namespace pygan::cuda {

constexpr int kWarp = 32;

// In every lane.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffff, value, distance);
  return value;
}

// The sum of every thread's value, for all of the first warp. `warps` is shared memory, one place a warp.
template <int kWarps>
__device__ __forceinline__ double block_sum(double value, double (&warps)[kWarps]) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  value = warp_sum(value);
  if (lane == 0) warps[warp] = value;
  __syncthreads();  // every warp's sum is there
  if (warp == 0) value = warp_sum(lane < kWarps ? warps[lane] : 0.0);
  __syncthreads();  // the sums were read: the next call may overwrite them
  return value;
}

}  // namespace pygan::cuda
