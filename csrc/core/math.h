// Elementary functions for fp32 without branches, so that a plain loop over them becomes SIMD code. Compilers fuse
// products and sums as they like, so a CPU lane and a GPU thread agree to a few ulp. fp64 calls the system's
// functions: it exists for checks.
// Errors are a few ulp over the whole range; infinities and NaN pass through as in the C library.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace pygan {

PYGAN_HD float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

PYGAN_HD uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// a*b + c: fused wherever the machine has it in one instruction, never through the library's emulation.
PYGAN_HD float mul_add(float a, float b, float c) {
#if defined(__CUDACC__) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

// Nearest integer for |x| < 2^22, as a float: adding 1.5 * 2^23 leaves no room for a fraction.
PYGAN_HD float round_small(float x) { return (x + 12582912.0f) - 12582912.0f; }

PYGAN_HD float absolute(float x) { return bits_to_float(float_to_bits(x) & 0x7fffffffu); }
PYGAN_HD double absolute(double x) { return x < 0 ? -x : x; }

PYGAN_HD float exponential(float x) {
  x = x < -104.0f ? -104.0f : x;  // comparisons let NaN pass
  x = x > 89.0f ? 89.0f : x;
  const float n = round_small(x * 1.44269504f);
  const float r = mul_add(n, -1.42860677e-06f, mul_add(n, -0.693145752f, x));
  float p = 1.98412698e-04f;
  p = mul_add(p, r, 1.38888889e-03f);
  p = mul_add(p, r, 8.33333333e-03f);
  p = mul_add(p, r, 4.16666667e-02f);
  p = mul_add(p, r, 1.66666667e-01f);
  p = mul_add(p, r, 0.5f);
  p = mul_add(p, r, 1.0f);
  p = mul_add(p, r, 1.0f);
  // 2^n in two factors: n reaches 128 and -150, which one exponent field cannot hold.
  const int32_t whole = static_cast<int32_t>(n);
  const int32_t half = whole >> 1;
  const float low = bits_to_float(static_cast<uint32_t>(half + 127) << 23);
  const float high = bits_to_float(static_cast<uint32_t>(whole - half + 127) << 23);
  return p * low * high;
}

// e^x - 1 for x <= 0, accurate near zero too.
PYGAN_HD float exponential_minus_one(float x) {
  float p = 2.75573192e-06f;
  p = mul_add(p, x, 2.48015873e-05f);
  p = mul_add(p, x, 1.98412698e-04f);
  p = mul_add(p, x, 1.38888889e-03f);
  p = mul_add(p, x, 8.33333333e-03f);
  p = mul_add(p, x, 4.16666667e-02f);
  p = mul_add(p, x, 1.66666667e-01f);
  p = mul_add(p, x, 0.5f);
  p = mul_add(p * x, x, x);
  const float far = exponential(x) - 1.0f;
  return x > -0.5f ? p : far;
}

// log(1 + x) for x in [-1/2, 1] by 2 atanh(x / (2 + x)): no cancellation anywhere.
PYGAN_HD float log_one_plus(float x) {
  const float s = x / (2.0f + x);
  const float s2 = s * s;
  float p = 1.0f / 17.0f;
  p = mul_add(p, s2, 1.0f / 15.0f);
  p = mul_add(p, s2, 1.0f / 13.0f);
  p = mul_add(p, s2, 1.0f / 11.0f);
  p = mul_add(p, s2, 1.0f / 9.0f);
  p = mul_add(p, s2, 1.0f / 7.0f);
  p = mul_add(p, s2, 1.0f / 5.0f);
  p = mul_add(p, s2, 1.0f / 3.0f);
  p = mul_add(p, s2, 1.0f);
  return 2.0f * s * p;
}

// Natural logarithm of a normal positive number.
PYGAN_HD float logarithm(float x) {
  const uint32_t bits = float_to_bits(x);
  // Mantissa in [sqrt(1/2), sqrt(2)): the series below is then short on both sides of 1.
  const int32_t exponent = static_cast<int32_t>(bits - 0x3f3504f3u) >> 23;
  const float mantissa = bits_to_float(bits - (static_cast<uint32_t>(exponent) << 23));
  const float n = static_cast<float>(exponent);
  const float s = (mantissa - 1.0f) / (mantissa + 1.0f);
  const float s2 = s * s;
  float p = 1.0f / 11.0f;
  p = mul_add(p, s2, 1.0f / 9.0f);
  p = mul_add(p, s2, 1.0f / 7.0f);
  p = mul_add(p, s2, 1.0f / 5.0f);
  p = mul_add(p, s2, 1.0f / 3.0f);
  p = mul_add(p * s2, 2.0f * s, 2.0f * s);
  return mul_add(n, 0.693145752f, mul_add(n, 1.42860677e-06f, p));
}

// log p for p in [0, 1], subnormal numbers included; the least float there is for 0.
PYGAN_HD float log_of_probability(float p) {
  const bool tiny = p < 1.17549435e-38f;
  const float value = logarithm(p * (tiny ? 18446744073709551616.0f : 1.0f)) - (tiny ? 44.3614196f : 0.0f);
  return p > 0.0f ? value : -3.40282347e+38f;
}

// log(1 - p) for p in [0, 1], accurate at both ends: 1 - p is exact from 1/2 on.
PYGAN_HD float log_one_minus(float p) {
  const float near = log_one_plus(p > 0.5f ? -0.5f : -p);
  const float far = log_of_probability(1.0f - p);
  return p > 0.5f ? far : near;
}

// cos(2 pi t) and sin(2 pi t) for t in [0, 1): the nearest quarter turn, and a polynomial on what is left.
PYGAN_HD void cos_sin_turn(float t, float* cosine, float* sine) {
  const float quarter = round_small(t * 4.0f);
  const float r = mul_add(quarter, -0.25f, t) * 6.28318531f;  // exact difference, |r| <= pi/4
  const float r2 = r * r;
  float s = 2.75573192e-06f;
  s = mul_add(s, r2, -1.98412698e-04f);
  s = mul_add(s, r2, 8.33333333e-03f);
  s = mul_add(s, r2, -1.66666667e-01f);
  s = mul_add(s * r2, r, r);
  float c = -2.75573192e-07f;
  c = mul_add(c, r2, 2.48015873e-05f);
  c = mul_add(c, r2, -1.38888889e-03f);
  c = mul_add(c, r2, 4.16666667e-02f);
  c = mul_add(c, r2, -0.5f);
  c = mul_add(c, r2, 1.0f);
  const int32_t turn = static_cast<int32_t>(quarter) & 3;
  const float even = (turn & 1) ? s : c;
  const float odd = (turn & 1) ? c : s;
  *cosine = (turn == 1 || turn == 2) ? -even : even;
  *sine = (turn >= 2) ? -odd : odd;
}

PYGAN_HD float hyperbolic_tangent(float x) {
  const float e = exponential_minus_one(-2.0f * absolute(x));
  const float t = -e / (e + 2.0f);
  // The sign bit of x, so that tanh(-0) is -0 and NaN stays NaN.
  return bits_to_float((float_to_bits(t) & 0x7fffffffu) | (float_to_bits(x) & 0x80000000u));
}

PYGAN_HD double exponential(double x) { return ::exp(x); }
PYGAN_HD double exponential_minus_one(double x) { return ::expm1(x); }
PYGAN_HD double log_one_plus(double x) { return ::log1p(x); }
PYGAN_HD double log_of_probability(double p) { return ::log(p); }
PYGAN_HD double log_one_minus(double p) { return ::log1p(-p); }
PYGAN_HD double hyperbolic_tangent(double x) { return ::tanh(x); }

template <class T>
PYGAN_HD T logistic(T x) {
  return T(1) / (T(1) + exponential(-x));
}

// log(1 + e^x), exact at both ends: x for large x, e^x for very negative x.
template <class T>
PYGAN_HD T softplus(T x) {
  return (x > T(0) ? x : T(0)) + log_one_plus(exponential(-absolute(x)));
}

}  // namespace pygan
