#include "layer_passes.h"

namespace pygan::cuda {

PYGAN_INSTANTIATE_LAYER(Math::tf32)

}  // namespace pygan::cuda
