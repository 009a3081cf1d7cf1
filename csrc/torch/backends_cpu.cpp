// A build for the CPU.
#include "../cpu/backend.h"
#include "backends.h"

namespace pygan {

const Backend* backend_for(c10::DeviceType type) { return type == c10::kCPU ? &cpu::backend() : nullptr; }

}  // namespace pygan
