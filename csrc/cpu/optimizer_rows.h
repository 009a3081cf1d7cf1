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
// Adam on 16 parameters. Square root and quotient come from their estimates and a step of Newton's each, which leave
// an ulp or two: the exact instructions take three times as long as all the rest.
struct AdamVector {
  __m512 rest1, beta2, rest2, eps, correction, step;

  explicit AdamVector(const Adam<float>& rule)
      : rest1(_mm512_set1_ps(rule.rest1)),
        beta2(_mm512_set1_ps(rule.beta2)),
        rest2(_mm512_set1_ps(rule.rest2)),
        eps(_mm512_set1_ps(rule.eps)),
        correction(_mm512_set1_ps(rule.inverse_root_correction2)),
        step(_mm512_set1_ps(rule.step_size)) {}

  void operator()(__m512& p, __m512 g, __m512& m, __m512& v) const {
    m = _mm512_fmadd_ps(rest1, _mm512_sub_ps(g, m), m);
    v = _mm512_fmadd_ps(_mm512_mul_ps(rest2, g), g, _mm512_mul_ps(beta2, v));
    // of NaN and a number, both take the second
    const __m512 x = _mm512_min_ps(_mm512_set1_ps(3.4e38f), _mm512_max_ps(_mm512_set1_ps(1.2e-38f), v));
    const __m512 r0 = _mm512_rsqrt14_ps(x);
    const __m512 half = _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(0.5f), x), r0);
    const __m512 r1 = _mm512_mul_ps(r0, _mm512_fnmadd_ps(half, r0, _mm512_set1_ps(1.5f)));
    const __m512 d = _mm512_fmadd_ps(_mm512_mul_ps(x, r1), correction, eps);
    const __m512 q0 = _mm512_rcp14_ps(d);
    const __m512 q1 = _mm512_mul_ps(q0, _mm512_fnmadd_ps(d, q0, _mm512_set1_ps(2.0f)));
    p = _mm512_fnmadd_ps(_mm512_mul_ps(step, m), q1, p);
  }
};

inline void update_run(const Adam<float>& rule, float* param, const float* grad, float* m, float* v, int64_t n) {
  const AdamVector update(rule);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    __m512 p1 = _mm512_loadu_ps(param + i), m1 = _mm512_loadu_ps(m + i), v1 = _mm512_loadu_ps(v + i);
    update(p1, _mm512_loadu_ps(grad + i), m1, v1);
    _mm512_storeu_ps(m + i, m1);
    _mm512_storeu_ps(v + i, v1);
    _mm512_storeu_ps(param + i, p1);
  }
  if (i == n) return;
  const __mmask16 lanes = __mmask16((1u << (n - i)) - 1);
  __m512 p1 = _mm512_maskz_loadu_ps(lanes, param + i), m1 = _mm512_maskz_loadu_ps(lanes, m + i);
  __m512 v1 = _mm512_maskz_loadu_ps(lanes, v + i);
  update(p1, _mm512_maskz_loadu_ps(lanes, grad + i), m1, v1);
  _mm512_mask_storeu_ps(m + i, lanes, m1);
  _mm512_mask_storeu_ps(v + i, lanes, v1);
  _mm512_mask_storeu_ps(param + i, lanes, p1);
}
#endif

}  // namespace pygan::cpu::PYGAN_ISA
