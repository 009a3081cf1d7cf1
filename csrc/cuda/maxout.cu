// max over pieces of dropout(x) W^T + b, and its backward.
#include "backend.h"
#include "layer.h"

namespace pygan::cuda {

void maxout_forward(const MaxoutForward& op) { layer_forward(op); }
void maxout_backward(const MaxoutBackward& op) { layer_backward(op); }
void maxout_grad(const MaxoutBackward& op, void* g) { layer_grad(op, g); }

}  // namespace pygan::cuda
