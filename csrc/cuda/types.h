// Storage types and the type each is computed in: half types in fp32.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../core/dtype.h"

namespace pygan::cuda {

template <class S>
using Compute = std::conditional_t<std::is_same_v<S, double>, double, float>;

PYGAN_HD float widen(float x) { return x; }
PYGAN_HD double widen(double x) { return x; }
PYGAN_HD float widen(BFloat16 x) { return to_float(x); }
PYGAN_HD float widen(Float16 x) { return to_float(x); }

template <class S>
PYGAN_HD S narrow(Compute<S> x) {
  if constexpr (std::is_same_v<S, BFloat16>)
    return to_bfloat16(x);
  else if constexpr (std::is_same_v<S, Float16>)
    return to_float16(x);
  else
    return x;
}

// What one load or store moves at most, in elements.
constexpr int kVectorBytes = 16;
template <class S>
constexpr int kVector = kVectorBytes / int(sizeof(S));

PYGAN_HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace pygan::cuda
