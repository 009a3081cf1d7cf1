#include "double_backward.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/expm1.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "checks.h"
#include "find_op.h"

namespace pygan {

using at::Tensor;
using torch::autograd::variable_list;

std::tuple<Tensor, Tensor, Tensor> empty_layer_grads(const Tensor& x, const Tensor& weight,
                                                     const std::array<bool, 3>& mask) {
  const auto make = [&](bool wanted, c10::SymIntArrayRef sizes) {
    return wanted ? at::empty_symint(sizes, x.options()) : at::empty({0}, x.options());
  };
  return {make(mask[0], x.sym_sizes()), make(mask[1], weight.sym_sizes()), make(mask[2], {weight.sym_size(0)})};
}

std::array<Tensor, 3> defined_where(const std::tuple<Tensor, Tensor, Tensor>& grads, const std::array<bool, 3>& mask) {
  const auto& [grad_x, grad_weight, grad_bias] = grads;
  return {mask[0] ? grad_x : Tensor(), mask[1] ? grad_weight : Tensor(), mask[2] ? grad_bias : Tensor()};
}

Tensor activation_derivative(Activation activation, const Tensor& y, double slope) {
  switch (activation) {
    case Activation::identity:
      return {};
    case Activation::relu:
      return (y > 0).to(y.scalar_type());
    case Activation::leaky_relu:
      return at::where(y > 0, at::ones({}, y.options()), at::full({}, slope, y.options()));
    case Activation::tanh:
      return 1 - y * y;
    case Activation::sigmoid:
      return y * (1 - y);
    case Activation::elu:
      return at::where(y > 0, at::ones({}, y.options()), y + 1);
    case Activation::softplus:
      return -(-y).expm1();
  }
  return {};
}

TermDerivatives term_derivatives(GanTerm term, const Tensor& logits, double smoothing) {
  const auto in_type = [&](const Tensor& mask) { return mask.to(logits.scalar_type()); };
  switch (term) {
    case GanTerm::hinge_real:
      return {-in_type((logits >= 1).logical_not()), at::zeros_like(logits)};
    case GanTerm::hinge_fake:
      return {in_type((logits <= -1).logical_not()), at::zeros_like(logits)};
    case GanTerm::square_real:
      return {logits - 1, at::ones_like(logits)};
    case GanTerm::square_fake:
      return {logits, at::ones_like(logits)};
    case GanTerm::critic_real:
      return {-at::ones_like(logits), at::zeros_like(logits)};
    case GanTerm::critic_fake:
      return {at::ones_like(logits), at::zeros_like(logits)};
    default:
      break;
  }
  const bool rising = term == GanTerm::fake || term == GanTerm::minimax;
  const Tensor a = rising ? logits : -logits;
  const Tensor s = at::sigmoid(a), bend = s * at::sigmoid(-a);
  Tensor slope = term == GanTerm::fake ? s : -s;
  if (term == GanTerm::real && smoothing != 0) slope = slope + smoothing;
  return {slope, term == GanTerm::minimax ? -bend : bend};
}

Tensor call_dropout(const Tensor& x, double p, c10::SymInt seed, c10::SymInt offset) {
  static const auto op = find_op<Tensor(const Tensor&, double, c10::SymInt, c10::SymInt)>("pygan::dropout");
  return op.call(x, p, std::move(seed), std::move(offset));
}

Tensor cotangent_of_g(const LayerSettings& settings, const variable_list& cotangents, const Tensor& x,
                      const Tensor& weight) {
  const auto mask = [&](const Tensor& t) {
    return settings.dropout > 0 ? call_dropout(t, settings.dropout, settings.seed, settings.offset) : t;
  };
  const Tensor &v_x = cotangents[0], &v_weight = cotangents[1], &v_bias = cotangents[2];
  Tensor sum;
  const auto add = [&](const Tensor& term) { sum = sum.defined() ? sum + term : term; };
  if (v_x.defined()) add(at::matmul(mask(v_x), weight.t()));
  if (v_weight.defined()) add(at::matmul(mask(x), v_weight.t()));
  if (v_bias.defined()) add(v_bias.expand_symint(with_last(x, weight.sym_size(0))));
  return sum;
}

}  // namespace pygan
