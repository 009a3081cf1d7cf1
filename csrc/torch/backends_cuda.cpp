// A build for the CPU and CUDA.
#include "../cpu/backend.h"
#include "../cuda/backend.h"
#include "backends.h"

namespace pygan {

const Backend* backend_for(c10::DeviceType type) {
  if (type == c10::kCPU) return &cpu::backend();
  return type == c10::kCUDA ? &cuda::backend() : nullptr;
}

}  // namespace pygan
