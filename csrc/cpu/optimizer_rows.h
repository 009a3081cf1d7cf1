// An update rule along a run of parameters.
#pragma once

#include "../core/optimizer.h"
#include "simd.h"

namespace pygan::cpu::PYGAN_ISA {

// rule(param, gradient, states) over n elements.
template <class T>
inline void update_run(const Momentum<T>& rule, T* param, const T* grad, T* velocity, T*, int64_t n) {
  const Momentum<T> local = rule;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) local(param + i, grad[i], velocity + i);
}

template <class T>
inline void update_run(const Adam<T>& rule, T* param, const T* grad, T* m, T* v, int64_t n) {
  const Adam<T> local = rule;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) local(param + i, grad[i], m + i, v + i);
}

#if defined(__AVX512F__)
// Square root and quotient from their estimates and a step of Newton's each, which leave an ulp or two: the exact
// instructions take three times as long as all the rest.
inline void update_run(const Adam<float>& rule, float* param, const float* grad, float* m, float* v, int64_t n) {
  const __m512 rest1 = _mm512_set1_ps(rule.rest1), beta2 = _mm512_set1_ps(rule.beta2);
  const __m512 rest2 = _mm512_set1_ps(rule.rest2), eps = _mm512_set1_ps(rule.eps);
  const __m512 correction = _mm512_set1_ps(rule.inverse_root_correction2), step = _mm512_set1_ps(rule.step_size);
  const __m512 least = _mm512_set1_ps(1.2e-38f), most = _mm512_set1_ps(3.4e38f);
  const __m512 half = _mm512_set1_ps(0.5f), three_halves = _mm512_set1_ps(1.5f), two = _mm512_set1_ps(2.0f);
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = n - i < 16 ? __mmask16((1u << (n - i)) - 1) : __mmask16(0xffff);
    const __m512 g = _mm512_maskz_loadu_ps(lanes, grad + i), m0 = _mm512_maskz_loadu_ps(lanes, m + i);
    const __m512 v0 = _mm512_maskz_loadu_ps(lanes, v + i), p0 = _mm512_maskz_loadu_ps(lanes, param + i);
    const __m512 m1 = _mm512_fmadd_ps(rest1, _mm512_sub_ps(g, m0), m0);
    const __m512 v1 = _mm512_fmadd_ps(_mm512_mul_ps(rest2, g), g, _mm512_mul_ps(beta2, v0));
    // the second operand is what comes of NaN
    const __m512 x = _mm512_min_ps(most, _mm512_max_ps(least, v1));
    const __m512 r0 = _mm512_rsqrt14_ps(x);
    const __m512 r1 = _mm512_mul_ps(r0, _mm512_fnmadd_ps(_mm512_mul_ps(_mm512_mul_ps(half, x), r0), r0, three_halves));
    const __m512 d = _mm512_fmadd_ps(_mm512_mul_ps(x, r1), correction, eps);
    const __m512 q0 = _mm512_rcp14_ps(d);
    const __m512 q1 = _mm512_mul_ps(q0, _mm512_fnmadd_ps(d, q0, two));
    const __m512 p1 = _mm512_fnmadd_ps(_mm512_mul_ps(step, m1), q1, p0);
    _mm512_mask_storeu_ps(m + i, lanes, m1);
    _mm512_mask_storeu_ps(v + i, lanes, v1);
    _mm512_mask_storeu_ps(param + i, lanes, p1);
  }
}
#endif

}  // namespace pygan::cpu::PYGAN_ISA
