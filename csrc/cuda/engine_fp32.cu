#include "engine_passes.h"

namespace pygan::cuda {

PYGAN_INSTANTIATE_ENGINE(Math::fp32)

}  // namespace pygan::cuda
