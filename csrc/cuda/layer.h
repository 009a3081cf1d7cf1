// The layers' passes, instantiated once per kind of arithmetic: layer_<math>.cu. linear_act.cu and maxout.cu choose.
#pragma once

#include "../core/ops.h"
#include "math.h"

namespace pygan::cuda {

template <Math kMath>
void layer_forward(const LinearActForward& op);
template <Math kMath>
void layer_forward(const MaxoutForward& op);
template <Math kMath>
void layer_backward(const LinearActBackward& op);
template <Math kMath>
void layer_backward(const MaxoutBackward& op);

// g, the gradient of the pre-activations, alone.
template <Math kMath>
void layer_grad(const LinearActBackward& op, void* g);
template <Math kMath>
void layer_grad(const MaxoutBackward& op, void* g);

// With the arithmetic that suits the dtype: fp32 is rounded to TF32 only where the user allows it.
template <class Op>
void layer_forward(const Op& op) {
  switch (op.dtype) {
    case DType::f32:
      return op.run.allow_tf32 ? layer_forward<Math::tf32>(op) : layer_forward<Math::fp32>(op);
    case DType::f64:
      return layer_forward<Math::fp64>(op);
    case DType::bf16:
      return layer_forward<Math::bf16>(op);
    case DType::f16:
      return layer_forward<Math::f16>(op);
  }
}

template <class Op>
void layer_backward(const Op& op) {
  switch (op.dtype) {
    case DType::f32:
      return op.run.allow_tf32 ? layer_backward<Math::tf32>(op) : layer_backward<Math::fp32>(op);
    case DType::f64:
      return layer_backward<Math::fp64>(op);
    case DType::bf16:
      return layer_backward<Math::bf16>(op);
    case DType::f16:
      return layer_backward<Math::f16>(op);
  }
}

template <class Op>
void layer_grad(const Op& op, void* g) {
  switch (op.dtype) {
    case DType::f32:
      return layer_grad<Math::fp32>(op, g);
    case DType::f64:
      return layer_grad<Math::fp64>(op, g);
    case DType::bf16:
      return layer_grad<Math::bf16>(op, g);
    case DType::f16:
      return layer_grad<Math::f16>(op, g);
  }
}

}  // namespace pygan::cuda
