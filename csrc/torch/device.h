// What an op may use on the device it runs on.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <vector>

#include "backends.h"

namespace pygan {

// Gives an op's device kernels to the CPU, and to CUDA where the build has them: else `composed.py` may.
#define PYGAN_REGISTER_KERNELS(add)              \
  TORCH_LIBRARY_IMPL(pygan, CPU, m) { add(m); }  \
  TORCH_LIBRARY_IMPL(pygan, CUDA, m) {           \
    if (::pygan::backend_for(at::kCUDA)) add(m); \
  }

// Whether the user lets fp32 products on CUDA round their factors to TF32, by torch's older or newer settings.
bool tf32_allowed();

// One op's stay on a device: makes it current, and holds the scratch memory until the op has queued its work.
class Run {
 public:
  explicit Run(const at::Device& device);
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  const Backend* operator->() const { return backend_; }
  const Backend& operator*() const { return *backend_; }
  Resources resources();

 private:
  static void* scratch(void* self, size_t bytes);

  const at::Device device_;
  const c10::OptionalDeviceGuard guard_;
  const Backend* const backend_;
  std::vector<at::Tensor> scratch_;
};

}  // namespace pygan
