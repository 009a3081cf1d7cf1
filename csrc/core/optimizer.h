// Update rules, one parameter at a time.
#pragma once

#include <cmath>

#include "host_device.h"
#include "math.h"
#include "ops.h"
#include "training.h"

namespace pygan {

PYGAN_HD float square_root(float x) { return sqrtf(x); }
PYGAN_HD double square_root(double x) { return ::sqrt(x); }

// The paper's momentum: the learning rate is inside the velocity, v = mu v - lr g; p += v.
// torch.optim.SGD keeps it outside; the two differ as soon as lr changes.
template <class T>
struct Momentum {
  T lr, momentum;

  PYGAN_HD void operator()(T* param, T grad, T* velocity) const {
    const T v = momentum * *velocity - lr * grad;
    *velocity = v;
    *param += v;
  }
};

// Adam (Kingma & Ba 2015) as torch.optim.Adam writes it:
// p -= (lr / correction1) m / (sqrt(v) / sqrt(correction2) + eps), correction_i = 1 - beta_i^step.
template <class T>
struct Adam {
  T step_size;  // lr / correction1
  T inverse_root_correction2;
  T rest1, beta2, rest2;  // rest = 1 - beta, rounded from double: 1 - 0.999f would be off by 1e-5
  T eps;

  PYGAN_HD void operator()(T* param, T grad, T* m, T* v) const {
    *m += rest1 * (grad - *m);
    *v = beta2 * *v + rest2 * grad * grad;
    *param -= step_size * *m / (square_root(*v) * inverse_root_correction2 + eps);
  }
};

// The rules of an update, their scalars computed in double.
template <class T>
PYGAN_HD Momentum<T> rule_of(const MomentumUpdate& op) {
  return {T(op.lr), T(op.momentum)};
}

template <class T>
PYGAN_HD Adam<T> rule_of(const AdamUpdate& op) {
  const double correction1 = 1 - std::pow(op.beta1, double(op.step));
  const double correction2 = 1 - std::pow(op.beta2, double(op.step));
  return {
      T(op.lr / correction1), T(1 / std::sqrt(correction2)), T(1 - op.beta1), T(op.beta2), T(1 - op.beta2), T(op.eps)};
}

// The schedules of pygan/optim.py: updates count from 0, epochs from 1.
PYGAN_HD double lr_at(const MomentumRule& rule, int64_t update) {
  const double lr = rule.lr * std::pow(rule.lr_decay, -double(update));
  return lr < rule.lr_floor ? rule.lr_floor : lr;
}

PYGAN_HD double momentum_at(const MomentumRule& rule, int64_t epoch) {
  const double along = (double(epoch) - rule.first_epoch) / (rule.last_epoch - rule.first_epoch);
  const double share = along < 0 ? 0 : along > 1 ? 1 : along;
  return rule.momentum * (1 - share) + rule.final_momentum * share;
}

}  // namespace pygan
