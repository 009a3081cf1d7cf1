// All layers of a narrow MLP in one launch: forward gives every layer's output, which backward needs; backward gives
// the gradients of every layer's pre-activations, of which the weights' gradients are products.
#include "small_mlp.h"

#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>

#include "checks.h"
#include "device.h"
#include "double_backward.h"
#include "find_op.h"
#include "node.h"

namespace pygan {
namespace {

using at::Tensor;
using at::TensorList;
using std::optional;
using torch::autograd::variable_list;
using Names = c10::List<std::string>;
using Biases = c10::List<optional<Tensor>>;

void check(const char* op, TensorList weights, const Names& activations) {
  TORCH_CHECK_VALUE(!weights.empty() && weights.size() <= size_t(kSmallMlpLayers), op, ": weights must have 1 to ",
                    kSmallMlpLayers, " entries, got ", weights.size());
  TORCH_CHECK_VALUE(activations.size() == weights.size(), op, ": activations must have one entry for each of the ",
                    weights.size(), " weights, got ", activations.size());
  for (const Tensor& weight : weights) {
    check_floating(op, "weights", weight);
    TORCH_CHECK_TYPE(weight.scalar_type() != at::kDouble, op, ": weights must not be float64");
    TORCH_CHECK_VALUE(weight.dim() == 2 && weight.sym_size(0) <= kSmallMlpWidth && weight.sym_size(1) <= kSmallMlpWidth,
                      op, ": weights must be 2-dimensional and at most ", kSmallMlpWidth, " wide, got ",
                      weight.sym_sizes());
  }
}

std::vector<Tensor> empty_outputs(const Tensor& x, TensorList weights, const Biases& biases, const Names& activations) {
  check("small_mlp", weights, activations);
  TORCH_CHECK_VALUE(biases.size() == weights.size(), "small_mlp: biases must have one entry for each of the ",
                    weights.size(), " weights, got ", biases.size());
  std::vector<Tensor> outputs;
  for (size_t i = 0; i < weights.size(); ++i) {
    check_layer("small_mlp", i ? outputs.back() : x, weights[i], biases.get(i));
    outputs.push_back(at::empty_symint(with_last(x, weights[i].sym_size(0)), x.options()));
  }
  return outputs;
}

// Contiguous copies where tensors are not, kept while a kernel is queued.
class Held {
 public:
  const void* contiguous(const Tensor& tensor) {
    held_.push_back(tensor.contiguous());
    return held_.back().const_data_ptr();
  }

 private:
  std::vector<Tensor> held_;
};

std::vector<Tensor> forward(const Tensor& x, TensorList weights, const Biases& biases, const Names& activations,
                            double slope) {
  check_slope("small_mlp", slope);
  std::vector<Tensor> outputs = empty_outputs(x, weights, biases, activations);
  Held held;
  Run run(x.device());
  TORCH_CHECK_NOT_IMPLEMENTED(run->small_mlp_forward, "small_mlp has no kernel for ", x.device().type());
  SmallMlpForward op{dtype_of(x), held.contiguous(x), as_rows(x).size(0), {}, int(weights.size()),
                     slope,       run.resources()};
  for (size_t i = 0; i < weights.size(); ++i) {
    const optional<Tensor> bias = biases.get(i);
    op.layers[i] = {held.contiguous(weights[i]),
                    bias ? held.contiguous(*bias) : nullptr,
                    int(weights[i].size(0)),
                    int(weights[i].size(1)),
                    parse_activation("small_mlp", activations.get(i)),
                    outputs[i].mutable_data_ptr(),
                    nullptr};
  }
  run->small_mlp_forward(op);
  return outputs;
}

std::vector<Tensor> meta(const Tensor& x, TensorList weights, const Biases& biases, const Names& activations,
                         double slope) {
  check_slope("small_mlp", slope);
  for (const std::string& name : activations) parse_activation("small_mlp", name);
  return empty_outputs(x, weights, biases, activations);
}

// grad_x (empty where it is not wanted), then the gradient of each layer's pre-activations.
std::vector<Tensor> empty_grads(const Tensor& grad_y, TensorList weights, TensorList outputs, const Names& activations,
                                bool input) {
  constexpr const char* kOp = "small_mlp_backward";
  check(kOp, weights, activations);
  TORCH_CHECK_VALUE(outputs.size() == weights.size(), kOp, ": outputs must have one entry for each of the ",
                    weights.size(), " weights, got ", outputs.size());
  check_shape(kOp, "grad_y", grad_y, outputs.back().sym_sizes());
  std::vector<Tensor> grads;
  grads.push_back(input ? at::empty_symint(with_last(grad_y, weights[0].sym_size(1)), grad_y.options())
                        : at::empty({0}, grad_y.options()));
  for (size_t i = 0; i < outputs.size(); ++i) {
    check_same(kOp, "outputs", outputs[i], "grad_y", grad_y);
    check_same(kOp, "weights", weights[i], "grad_y", grad_y);
    check_shape(kOp, "outputs", outputs[i], with_last(grad_y, weights[i].sym_size(0)));
    grads.push_back(at::empty_symint(outputs[i].sym_sizes(), grad_y.options()));
  }
  return grads;
}

std::vector<Tensor> backward(const Tensor& grad_y, TensorList weights, TensorList outputs, const Names& activations,
                             double slope, bool input) {
  std::vector<Tensor> grads = empty_grads(grad_y, weights, outputs, activations, input);
  Held held;
  Run run(grad_y.device());
  TORCH_CHECK_NOT_IMPLEMENTED(run->small_mlp_backward, "small_mlp_backward has no kernel for ", grad_y.device().type());
  SmallMlpBackward op{dtype_of(grad_y),
                      held.contiguous(grad_y),
                      as_rows(grad_y).size(0),
                      {},
                      int(weights.size()),
                      slope,
                      input ? grads[0].mutable_data_ptr() : nullptr,
                      run.resources()};
  for (size_t i = 0; i < weights.size(); ++i)
    op.layers[i] = {held.contiguous(weights[i]),
                    nullptr,
                    int(weights[i].size(0)),
                    int(weights[i].size(1)),
                    parse_activation("small_mlp_backward", activations.get(i)),
                    const_cast<void*>(held.contiguous(outputs[i])),
                    grads[i + 1].mutable_data_ptr()};
  run->small_mlp_backward(op);
  return grads;
}

std::vector<Tensor> backward_meta(const Tensor& grad_y, TensorList weights, TensorList outputs,
                                  const Names& activations, double, bool input) {
  return empty_grads(grad_y, weights, outputs, activations, input);
}

std::vector<Tensor> call_backward(const Tensor& grad_y, TensorList weights, TensorList outputs,
                                  const Names& activations, double slope, bool input) {
  static const auto op =
      find_op<std::vector<Tensor>(const Tensor&, TensorList, TensorList, const Names&, double, bool)>(
          "pygan::small_mlp_backward");
  return op.call(grad_y, weights, outputs, activations, slope, input);
}

using Grads = std::tuple<Tensor, Tensor, Tensor>;

Grads call_layer_backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& y,
                          c10::string_view activation, double slope, std::array<bool, 3> mask) {
  static const auto op =
      find_op<Grads(const Tensor&, const Tensor&, const Tensor&, const Tensor&, c10::string_view, double, double,
                    c10::SymInt, c10::SymInt, std::array<bool, 3>)>("pygan::linear_act_backward");
  return op.call(grad_y, x, weight, y, activation, slope, 0.0, 0, 0, mask);
}

// Inputs: x, then weights, then biases. Outputs: one a layer.
class SmallMlpNode final : public torch::autograd::Node {
 public:
  torch::autograd::SavedVariable x;
  std::vector<torch::autograd::SavedVariable> weights, outputs;
  Names activations;
  double slope = 0;

  variable_list apply(variable_list&& grads) override {
    Tensor input;
    std::vector<Tensor> w, y;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      input = x.unpack();
      for (const auto& saved : weights) w.push_back(saved.unpack());
      for (const auto& saved : outputs) y.push_back(saved.unpack(this->getptr()));
    }
    const bool inner = std::any_of(grads.begin(), grads.end() - 1, [](const Tensor& g) { return g.defined(); });
    // a gradient that must be differentiable, or that enters between the layers, goes layer by layer
    return at::GradMode::is_enabled() || inner || !grads.back().defined() ? by_layer(input, w, y, grads)
                                                                          : at_once(input, w, y, grads.back());
  }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    x.reset_data();
    for (auto& saved : weights) saved.reset_data();
    for (auto& saved : outputs) saved.reset_data();
  }

  std::string name() const override { return "PyganSmallMlpBackward"; }

 private:
  bool wants_weight(size_t i) const { return task_should_compute_output(1 + i); }
  bool wants_bias(size_t i) const { return task_should_compute_output(1 + weights.size() + i); }

  void put(variable_list& result, size_t i, const Grads& grads, const std::array<bool, 3>& mask) const {
    const auto wanted = defined_where(grads, mask);
    if (i == 0) result[0] = wanted[0];
    result[1 + i] = wanted[1];
    result[1 + weights.size() + i] = wanted[2];
  }

  variable_list at_once(const Tensor& input, const std::vector<Tensor>& w, const std::vector<Tensor>& y,
                        const Tensor& grad) const {
    const bool wants_x = task_should_compute_output(0);
    const std::vector<Tensor> g = call_backward(grad, w, y, activations, slope, wants_x);
    variable_list result(1 + 2 * w.size());
    for (size_t i = 0; i < w.size(); ++i) {
      const std::array<bool, 3> mask{false, wants_weight(i), wants_bias(i)};
      if (!mask[1] && !mask[2]) continue;
      put(result, i, call_layer_backward(g[i + 1], i ? y[i - 1] : input, w[i], y[i], "identity", 0, mask), mask);
    }
    if (wants_x) result[0] = g[0];
    return result;
  }

  variable_list by_layer(const Tensor& input, const std::vector<Tensor>& w, const std::vector<Tensor>& y,
                         const variable_list& grads) const {
    variable_list result(1 + 2 * w.size());
    Tensor grad = grads.back();
    for (size_t i = w.size(); i-- > 0;) {
      Tensor grad_input;
      if (grad.defined()) {
        const std::array<bool, 3> mask{i > 0 || task_should_compute_output(0), wants_weight(i), wants_bias(i)};
        const Grads layer =
            call_layer_backward(grad, i ? y[i - 1] : input, w[i], y[i], activations.get(i), slope, mask);
        put(result, i, layer, mask);
        if (i) grad_input = std::get<0>(layer);
      }
      if (i == 0) break;
      const Tensor& from_outside = grads[i - 1];
      grad = grad_input.defined() && from_outside.defined() ? grad_input + from_outside
             : grad_input.defined()                         ? grad_input
                                                            : from_outside;
    }
    return result;
  }
};

std::vector<Tensor> autograd(const Tensor& x, TensorList weights, const Biases& biases, const Names& activations,
                             double slope) {
  std::vector<Tensor> outputs = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_small_mlp(x, weights, biases, activations, slope);
  }();
  std::vector<Tensor> inputs{x};
  inputs.insert(inputs.end(), weights.begin(), weights.end());
  for (size_t i = 0; i < biases.size(); ++i) inputs.push_back(biases.get(i).value_or(Tensor()));
  bool needed = false;
  for (const Tensor& input : inputs) needed |= records("small_mlp", std::array{&input});
  if (!needed) return outputs;
  const auto [owner, node] = make_node<SmallMlpNode>();
  torch::autograd::edge_list edges;
  for (const Tensor& input : inputs) edges.push_back(edge_to(&input));
  node->set_next_edges(std::move(edges));
  for (const Tensor& output : outputs) torch::autograd::set_history(output, owner);
  node->x = torch::autograd::SavedVariable(x, false);
  for (const Tensor& weight : weights) node->weights.emplace_back(weight, false);
  for (const Tensor& output : outputs) node->outputs.emplace_back(output, true);
  node->activations = activations;
  node->slope = slope;
  return outputs;
}

// Nobody needs its derivative: SmallMlpNode goes layer by layer where gradients must be differentiable.
std::vector<Tensor> backward_autograd(const Tensor& grad_y, TensorList weights, TensorList outputs,
                                      const Names& activations, double slope, bool input) {
  bool needed = records("small_mlp_backward", std::array{&grad_y});
  for (const TensorList list : {weights, outputs})
    for (const Tensor& tensor : list) needed |= records("small_mlp_backward", std::array{&tensor});
  TORCH_CHECK_NOT_IMPLEMENTED(!needed,
                              "small_mlp_backward has no derivative: linear_act_backward, layer by layer, has");
  at::AutoDispatchBelowADInplaceOrView below;
  return call_backward(grad_y, weights, outputs, activations, slope, input);
}

void register_kernels(torch::Library& m) {
  m.impl("small_mlp", forward);
  m.impl("small_mlp_backward", backward);
}

}  // namespace

bool serves_small_mlp(const Tensor& x, TensorList weights, const c10::List<std::string>& activations,
                      at::ArrayRef<double> dropout) {
  const Backend* backend = backend_for(x.device().type());
  if (!backend || !backend->small_mlp_forward) return false;
  if (at::autocast::is_autocast_enabled(x.device().type())) return false;  // each layer lowers its own inputs
  if (weights.size() < 2 || weights.size() > size_t(kSmallMlpLayers) || x.scalar_type() == at::kDouble) return false;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (dropout[i] > 0 || activations.get(i) == "maxout") return false;
    for (int64_t d = 0; d < 2; ++d) {
      const auto size = weights[i].sym_size(d).maybe_as_int();
      if (!size || *size > kSmallMlpWidth) return false;
    }
  }
  // Each block of 16 rows stages all weights: beyond two blocks a multiprocessor, layers by themselves are faster.
  constexpr int64_t kRows = 4096;
  const auto elements = x.sym_numel().maybe_as_int();
  return elements && *elements <= kRows * std::max<int64_t>(1, *weights[0].sym_size(1).maybe_as_int());
}

std::vector<Tensor> call_small_mlp(const Tensor& x, TensorList weights, const c10::List<optional<Tensor>>& biases,
                                   const c10::List<std::string>& activations, double slope) {
  static const auto op =
      find_op<std::vector<Tensor>(const Tensor&, TensorList, const Biases&, const Names&, double)>("pygan::small_mlp");
  return op.call(x, weights, biases, activations, slope);
}

PYGAN_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(pygan, Meta, m) {
  m.impl("small_mlp", meta);
  m.impl("small_mlp_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(pygan, Autograd, m) {
  m.impl("small_mlp", autograd);
  m.impl("small_mlp_backward", backward_autograd);
}

}  // namespace pygan
