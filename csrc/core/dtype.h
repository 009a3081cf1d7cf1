// From the dtype of an op to the C++ type that stores it.
#pragma once

#include "half.h"
#include "ops.h"

namespace pygan {

// Calls f with a null pointer of the storage type.
template <class F>
void for_dtype(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f32:
      return f(static_cast<float*>(nullptr));
    case DType::f64:
      return f(static_cast<double*>(nullptr));
    case DType::bf16:
      return f(static_cast<BFloat16*>(nullptr));
    case DType::f16:
      return f(static_cast<Float16*>(nullptr));
  }
}

}  // namespace pygan
