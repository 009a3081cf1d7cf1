// act(dropout(x) W^T + b) and its backward.
#include "backend.h"
#include "layer.h"

namespace pygan::cuda {

void linear_act_forward(const LinearActForward& op) { layer_forward(op); }
void linear_act_backward(const LinearActBackward& op) { layer_backward(op); }
void linear_act_grad(const LinearActBackward& op, void* g) { layer_grad(op, g); }

}  // namespace pygan::cuda
