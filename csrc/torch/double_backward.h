// What the autograd rules of the two kinds of layer share, and those of the losses. Second derivatives are written in
// torch's ops and in our own, which are differentiable in turn.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/variable.h>

#include <array>
#include <tuple>

#include "../core/activation.h"
#include "../core/gan_loss.h"

namespace pygan {

struct LayerSettings {
  int64_t kind;  // activation of linear_act, pieces of maxout
  double slope;
  double dropout;
  c10::SymInt seed, offset;
};

// grad_x, grad_weight, grad_bias for a backward op to fill; one that is not wanted is an empty tensor.
std::tuple<at::Tensor, at::Tensor, at::Tensor> empty_layer_grads(const at::Tensor& x, const at::Tensor& weight,
                                                                 const std::array<bool, 3>& mask);

// The three as autograd takes them: undefined where they are not wanted.
std::array<at::Tensor, 3> defined_where(const std::tuple<at::Tensor, at::Tensor, at::Tensor>& grads,
                                        const std::array<bool, 3>& mask);

// For grad_x = mask(g W), grad_W = g^T mask(x), grad_b = sum g with their cotangents v: the gradient of g,
// mask(v_x) W^T + mask(x) v_W^T + v_b, undefined where nothing flows. x (..., k), W (n, k), g (..., n). Torch's products:
// they have no activation to take in, and are as fast. Those of W and x, g^T mask(v_x) and mask(g v_W), do have one: they
// are the layer's own backward pass with v_x for x, or v_W for W.
at::Tensor cotangent_of_g(const LayerSettings& settings, const torch::autograd::variable_list& cotangents,
                          const at::Tensor& x, const at::Tensor& weight);

// f'(x) from y = f(x), differentiable; undefined where it is 1.
at::Tensor activation_derivative(Activation activation, const at::Tensor& y, double slope);

// First and second derivative of a term of the GANs' losses with respect to each logit, differentiable.
struct TermDerivatives {
  at::Tensor slope, bend;
};
TermDerivatives term_derivatives(GanTerm term, const at::Tensor& logits, double smoothing);

// dropout(x) through the dispatcher, differentiable.
at::Tensor call_dropout(const at::Tensor& x, double p, c10::SymInt seed, c10::SymInt offset);

}  // namespace pygan
