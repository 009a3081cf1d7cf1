// A build for the CPU and CUDA.
#include "../cpu/backend.h"
#include "../cuda/backend.h"
#include "device.h"

namespace pygan {

const Backend* backend_for(at::DeviceType type) {
  if (type == at::kCPU) return &cpu::backend();
  return type == at::kCUDA ? &cuda::backend() : nullptr;
}

}  // namespace pygan
