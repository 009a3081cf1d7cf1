// What the autograd functions of the two kinds of layer share. Second derivatives are written in torch ops, which
// are differentiable in turn.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <tuple>

namespace pygan {

// A layer's settings as an autograd node keeps them: one entry of saved_data, because each costs a hash table's work.
struct LayerSettings {
  int64_t kind;  // activation of linear_act, pieces of maxout
  double slope;
  double dropout;
  c10::SymInt seed, offset;
  bool has_bias;
};

void save_settings(torch::autograd::AutogradContext* ctx, LayerSettings settings);
LayerSettings saved_settings(torch::autograd::AutogradContext* ctx);

// Whether the graph needs a node for these inputs.
bool any_requires_grad(std::initializer_list<const at::Tensor*> inputs);

// Which of grad_x, grad_weight, grad_bias the graph asks for.
std::array<bool, 3> wanted_grads(const torch::autograd::AutogradContext* ctx, bool has_bias);

// grad_x, grad_weight, grad_bias for a backward op to fill; one that is not wanted is an empty tensor.
std::tuple<at::Tensor, at::Tensor, at::Tensor> empty_layer_grads(const at::Tensor& x, const at::Tensor& weight,
                                                                 const std::array<bool, 3>& mask);

void mark_unwanted(torch::autograd::AutogradContext* ctx, const torch::autograd::variable_list& grads,
                   const std::array<bool, 3>& mask);

// For grad_x = mask(g W), grad_W = g^T mask(x), grad_b = sum g with their cotangents: the gradients of g, x, W;
// undefined where nothing flows. g (..., n), x (..., k), W (n, k).
std::tuple<at::Tensor, at::Tensor, at::Tensor> layer_double_backward(const LayerSettings& settings,
                                                                     const torch::autograd::variable_list& cotangents,
                                                                     const at::Tensor& g, const at::Tensor& x,
                                                                     const at::Tensor& weight);

// dropout(x) through the dispatcher, differentiable.
at::Tensor call_dropout(const at::Tensor& x, double p, c10::SymInt seed, c10::SymInt offset);

}  // namespace pygan
