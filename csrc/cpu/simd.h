// Storage types to and from the type that is computed with, a row at a time, and the vector shapes of one
// instruction set.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../core/dtype.h"
#include "backend.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace pygan::cpu::PYGAN_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRegisterRows = 12;  // 12 x 2 accumulators, 2 vectors of B, broadcasts from memory
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kRegisterRows = 6;  // 12 accumulators of 16 registers
#else
constexpr int kVectorBytes = 16;
constexpr int kRegisterRows = 6;
#endif

// Half types are computed in fp32.
template <class S>
using Compute = std::conditional_t<std::is_same_v<S, double>, double, float>;

inline void load_row(const float* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = in[i];
}
inline void load_row(const double* in, int64_t n, double* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = in[i];
}
inline void load_row(const BFloat16* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = to_float(in[i]);
}
inline void load_row(const Float16* in, int64_t n, float* out) {
  int64_t i = 0;
#ifdef __F16C__
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
#endif
  for (; i < n; ++i) out[i] = to_float(in[i]);
}

inline void store_row(const float* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = in[i];
}
inline void store_row(const double* in, int64_t n, double* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = in[i];
}
inline void store_row(const float* in, int64_t n, BFloat16* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = to_bfloat16(in[i]);
}
inline void store_row(const float* in, int64_t n, Float16* out) {
  int64_t i = 0;
#ifdef __F16C__
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
#endif
  for (; i < n; ++i) out[i] = to_float16(in[i]);
}

inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(BFloat16 x) { return to_float(x); }
inline float widen(Float16 x) { return to_float(x); }

}  // namespace pygan::cpu::PYGAN_ISA
