// What the losses share: results by their reduction, second derivatives, autocast.
#pragma once

#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/empty.h>

#include "checks.h"
#include "double_backward.h"

namespace pygan {

inline at::Tensor empty_loss(const at::Tensor& logits, Reduction reduction) {
  return reduction == Reduction::none ? at::empty_symint(logits.sym_sizes(), logits.options())
                                      : at::empty({}, logits.options());
}

// The incoming gradient of a loss's value.
inline void check_upstream(const char* op, const at::Tensor& grad, const char* argument, const at::Tensor& logits,
                           Reduction reduction) {
  check_same(op, "grad", grad, argument, logits);
  check_shape(op, "grad", grad, reduction == Reduction::none ? logits.sym_sizes() : c10::SymIntArrayRef());
}

// Second derivatives, in torch ops, half types in fp32. The first was scale * grad * slope(a); v is its cotangent.
struct SecondOrder {
  at::Tensor of_grad, of_logits;
};

inline SecondOrder second_order(const TermDerivatives& term, const at::Tensor& v, const at::Tensor& grad,
                                const at::Tensor& logits, Reduction reduction) {
  const auto type = at::toOpMathType(logits.scalar_type());
  at::Tensor weighted = v.to(type);
  if (reduction == Reduction::mean) weighted = weighted / logits.sym_numel().guard_int(__FILE__, __LINE__);
  at::Tensor of_grad = weighted * term.slope;
  if (reduction != Reduction::none) of_grad = of_grad.sum();
  return {of_grad.to(grad.scalar_type()), (weighted * grad.to(type) * term.bend).to(logits.scalar_type())};
}

// In fp32, as autocast runs torch's own losses: then logits of several dtypes meet.
template <at::DeviceType device>
at::Tensor widened(const at::Tensor& logits) {
  return at::autocast::cached_cast(at::kFloat, logits, device);
}

}  // namespace pygan
