#include "engine_passes.h"

namespace pygan::cuda {

PYGAN_INSTANTIATE_ENGINE(Math::tf32)

}  // namespace pygan::cuda
