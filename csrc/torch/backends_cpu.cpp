// A build for the CPU.
#include "../cpu/backend.h"
#include "device.h"

namespace pygan {

const Backend* backend_for(at::DeviceType type) { return type == at::kCPU ? &cpu::backend() : nullptr; }

}  // namespace pygan
