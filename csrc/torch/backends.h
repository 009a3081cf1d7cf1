// The backends of this build.
#pragma once

#include <c10/core/DeviceType.h>

#include "../core/ops.h"

namespace pygan {

// The backend that serves a kind of device in this build, or null: backends_*.cpp, one of which is compiled.
const Backend* backend_for(c10::DeviceType type);

}  // namespace pygan
