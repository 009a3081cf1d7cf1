// The activation table. A derivative is a function of the *output*: backward needs no pre-activation.
//
//   name        y = f(x)                      f'(x) from y              d f' / d y (double backward)
//   identity    x                             1                         0
//   relu        max(x, 0)                     y > 0                     0
//   leaky_relu  x > 0 ? x : slope x           y > 0 ? 1 : slope         0
//   tanh        tanh x                        1 - y^2                   -2 y
//   sigmoid     1 / (1 + e^-x)                y (1 - y)                 1 - 2 y
//   elu         x > 0 ? x : e^x - 1           y > 0 ? 1 : y + 1         y > 0 ? 0 : 1
//   softplus    log(1 + e^x)                  1 - e^-y                  e^-y
#pragma once

#include "host_device.h"
#include "math.h"

namespace pygan {

enum class Activation : int { identity, relu, leaky_relu, tanh, sigmoid, elu, softplus };

constexpr const char* kActivationNames[] = {"identity", "relu", "leaky_relu", "tanh", "sigmoid", "elu", "softplus"};
constexpr int kActivations = 7;

template <Activation A>
struct ActivationTag {
  static constexpr Activation kValue = A;
};

// Calls f(ActivationTag<A>{}): a run-time activation becomes a template argument outside the inner loop. The pragma
// lets nvcc take an f that is for the device alone.
#if defined(__CUDACC__)
#pragma nv_exec_check_disable
#endif
template <class F>
PYGAN_HD void for_activation(Activation activation, const F& f) {
  switch (activation) {
    case Activation::identity:
      return f(ActivationTag<Activation::identity>{});
    case Activation::relu:
      return f(ActivationTag<Activation::relu>{});
    case Activation::leaky_relu:
      return f(ActivationTag<Activation::leaky_relu>{});
    case Activation::tanh:
      return f(ActivationTag<Activation::tanh>{});
    case Activation::sigmoid:
      return f(ActivationTag<Activation::sigmoid>{});
    case Activation::elu:
      return f(ActivationTag<Activation::elu>{});
    case Activation::softplus:
      return f(ActivationTag<Activation::softplus>{});
  }
}

// Comparisons are written so that NaN takes the branch that returns it.
template <Activation A, class T>
PYGAN_HD T activate(T x, T slope) {
  if constexpr (A == Activation::relu) return x < T(0) ? T(0) : x;
  if constexpr (A == Activation::leaky_relu) return x < T(0) ? x * slope : x;
  if constexpr (A == Activation::tanh) return hyperbolic_tangent(x);
  if constexpr (A == Activation::sigmoid) return logistic(x);
  if constexpr (A == Activation::elu) {
    const T below = exponential_minus_one(x < T(0) ? x : T(0));
    return x < T(0) ? below : x;
  }
  if constexpr (A == Activation::softplus) return softplus(x);
  return x;
}

template <Activation A, class T>
PYGAN_HD T derivative_from_output(T y, T slope) {
  if constexpr (A == Activation::relu) return y > T(0) ? T(1) : T(0);
  if constexpr (A == Activation::leaky_relu) return y > T(0) ? T(1) : slope;
  if constexpr (A == Activation::tanh) return T(1) - y * y;
  if constexpr (A == Activation::sigmoid) return y * (T(1) - y);
  if constexpr (A == Activation::elu) return y > T(0) ? T(1) : y + T(1);
  if constexpr (A == Activation::softplus) return -exponential_minus_one(-y);
  return T(1);
}

// g f'(y). Where ReLU is off the gradient is 0 even if g is infinite, and NaN in y lets it pass, as in torch.
template <Activation A, class T>
PYGAN_HD T times_derivative(T g, T y, T slope) {
  if constexpr (A == Activation::relu) return y <= T(0) ? T(0) : g;
  return g * derivative_from_output<A>(y, slope);
}

}  // namespace pygan
