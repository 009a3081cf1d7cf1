#include "layer_passes.h"

namespace pygan::cuda {

PYGAN_INSTANTIATE_LAYER(Math::fp64)

}  // namespace pygan::cuda
