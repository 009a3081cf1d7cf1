// The host side of a launch.
#pragma once

#include <cuda_runtime.h>

#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "../core/ops.h"

namespace pygan::cuda {

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // a launch that failed leaves its error behind
  throw std::runtime_error(std::string("pygan: ") + what + ": " + cudaGetErrorString(status));
}

// What the tile table needs to know of the current device.
struct DeviceLimits {
  int multiprocessors;
  int shared_bytes;  // of one block, at most
};

inline const DeviceLimits& device_limits() {
  constexpr int kDevices = 64;
  static DeviceLimits known[kDevices];
  static std::once_flag asked[kDevices];
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  if (device >= kDevices) throw std::runtime_error("pygan: more than 64 devices");
  std::call_once(asked[device], [&] {
    DeviceLimits& limits = known[device];
    check(cudaDeviceGetAttribute(&limits.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
          "cudaDeviceGetAttribute");
    check(cudaDeviceGetAttribute(&limits.multiprocessors, cudaDevAttrMultiProcessorCount, device),
          "cudaDeviceGetAttribute");
  });
  return known[device];
}

// Device memory for this op alone.
template <class T>
T* scratch(const Resources& run, size_t count) {
  return static_cast<T*>(run.scratch(run.owner, count * sizeof(T)));
}

// Kernels that this thread has queued.
inline int64_t& launched() {
  static thread_local int64_t count = 0;
  return count;
}

// Queues the kernel on the op's stream, with `shared_bytes` of dynamic shared memory a block.
template <class... Parameters, class... Arguments>
void launch(const Resources& run, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            Arguments&&... arguments) {
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)),
          "cudaFuncSetAttribute");
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(run.stream);
  ++launched();
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), "kernel launch");
}

}  // namespace pygan::cuda
