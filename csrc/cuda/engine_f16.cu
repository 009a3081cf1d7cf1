#include "engine_passes.h"

namespace pygan::cuda {

PYGAN_INSTANTIATE_ENGINE(Math::f16)

}  // namespace pygan::cuda
