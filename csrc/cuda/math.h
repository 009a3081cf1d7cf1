// How a product is computed: what is stored, what is accumulated, which units do it.
#pragma once

#include <cstdint>

#include "../core/half.h"
#include "../core/ops.h"

namespace pygan::cuda {

// fp32 and fp64 run on the ordinary units and are exact to their type; the others run on the tensor cores with fp32
// accumulation. tf32 is for fp32 operands where the user allows the rounding.
enum class Math { fp32, tf32, bf16, f16, fp64 };

template <Math kMath>
struct MathTypes {
  using Stored = float;
  using Accumulated = float;
};
template <>
struct MathTypes<Math::bf16> {
  using Stored = BFloat16;
  using Accumulated = float;
};
template <>
struct MathTypes<Math::f16> {
  using Stored = Float16;
  using Accumulated = float;
};
template <>
struct MathTypes<Math::fp64> {
  using Stored = double;
  using Accumulated = double;
};

template <Math kMath>
using Stored = typename MathTypes<kMath>::Stored;
template <Math kMath>
using Accumulated = typename MathTypes<kMath>::Accumulated;

template <class S>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <class S>
using Compute = typename ComputeType<S>::type;

PYGAN_HD float widen(float x) { return x; }
PYGAN_HD double widen(double x) { return x; }
PYGAN_HD float widen(BFloat16 x) { return to_float(x); }
PYGAN_HD float widen(Float16 x) { return to_float(x); }

template <class S>
PYGAN_HD S narrow(Compute<S> x) {
  return x;
}
template <>
PYGAN_HD BFloat16 narrow<BFloat16>(float x) {
  return to_bfloat16(x);
}
template <>
PYGAN_HD Float16 narrow<Float16>(float x) {
  return to_float16(x);
}

}  // namespace pygan::cuda
