// What the elementwise kernels share: runs of elements, and the size of a grid. Indices are 64-bit: tensors may have
// more than 2^31 elements.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>

#include "launch.h"
#include "runs.h"

namespace pygan::cuda {

// What one thread handles where there are random numbers: whole Philox blocks.
template <class S>
constexpr int kRandomRun = kRun<S> < 4 ? 4 : kRun<S>;

constexpr int kThreads = 256;

// A thread for each item, but no more than a few times what the device holds: threads go on in strides.
inline dim3 grid_of(int64_t items) {
  constexpr int kBlocksOfMultiprocessor = 32;
  const int64_t bound = int64_t(device_limits().multiprocessors) * kBlocksOfMultiprocessor;
  return dim3(unsigned(std::min(ceil_div(items, kThreads), bound)));
}

__device__ __forceinline__ int64_t first_item() { return int64_t(blockIdx.x) * kThreads + threadIdx.x; }
__device__ __forceinline__ int64_t item_stride() { return int64_t(gridDim.x) * kThreads; }

}  // namespace pygan::cuda
