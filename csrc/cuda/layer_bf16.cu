#include "layer_passes.h"

namespace pygan::cuda {

PYGAN_INSTANTIATE_LAYER(Math::bf16)

}  // namespace pygan::cuda
