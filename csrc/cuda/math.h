// How a product is computed: what is stored, what is accumulated, which units do it.
#pragma once

#include "types.h"

namespace pygan::cuda {

// fp32 and fp64 run on the ordinary units and are exact to their type; the others run on the tensor cores with fp32
// accumulation. tf32 is for fp32 operands where the user allows the rounding.
enum class Math { fp32, tf32, bf16, f16, fp64 };

template <Math kMath>
using Stored = std::conditional_t<
    kMath == Math::fp64, double,
    std::conditional_t<kMath == Math::bf16, BFloat16, std::conditional_t<kMath == Math::f16, Float16, float>>>;
template <Math kMath>
using Accumulated = Compute<Stored<kMath>>;

}  // namespace pygan::cuda
