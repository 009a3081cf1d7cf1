// act(batch_norm(x W^T + b)) as a torch op. The outer op is made of parts: what normalises, whose results are new, and
// the update of the running statistics by torch's own operation.
#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "autocast.h"
#include "checks.h"
#include "device.h"
#include "double_backward.h"
#include "find_op.h"
#include "library_product.h"
#include "node.h"

namespace pygan {
namespace {

using at::Tensor;
using std::optional;
using torch::autograd::variable_list;
using Mask = std::array<bool, 3>;
using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

constexpr const char* kName = "linear_batch_norm_act";
constexpr const char* kBackward = "linear_batch_norm_act_backward";

// One of the vectors over the columns: of x's dtype, or float32 beside half types.
void check_vector(const char* op, const char* argument, const optional<Tensor>& vector, const Tensor& x,
                  const Tensor& weight) {
  if (!vector) return;
  TORCH_CHECK_VALUE(vector->dim() == 1 && vector->sym_size(0) == weight.sym_size(0), op, ": ", argument,
                    " must have shape (", weight.sym_size(0), ") as weight ", weight.sym_sizes(), " has rows, got ",
                    vector->sym_sizes());
  const bool wide = vector->scalar_type() == at::toOpMathType(x.scalar_type());
  TORCH_CHECK_TYPE(wide || vector->scalar_type() == x.scalar_type(), op, ": ", argument, " must have x's dtype ",
                   x.scalar_type(), " (or float32 beside half types), got ", vector->scalar_type());
  TORCH_CHECK_VALUE(vector->device() == x.device(), op, ": ", argument, " must be on x's device ", x.device(), ", got ",
                    vector->device());
}

void check_running(const Tensor& x, const Tensor& weight, const optional<Tensor>& mean,
                   const optional<Tensor>& variance) {
  TORCH_CHECK_VALUE(weight.dim() == 2, kName, ": weight must be 2-dimensional (n, k), got ", weight.sym_sizes());
  check_vector(kName, "running_mean", mean, x, weight);
  check_vector(kName, "running_var", variance, x, weight);
  TORCH_CHECK_VALUE(mean.has_value() == variance.has_value(), kName,
                    ": running_mean and running_var must be given together, got only running_", mean ? "mean" : "var");
}

void check(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, const optional<Tensor>& gamma,
           const optional<Tensor>& beta, const optional<Tensor>& mean, const optional<Tensor>& variance, double eps,
           double slope) {
  check_layer(kName, x, weight, bias);
  TORCH_CHECK_VALUE(x.dim() == 2, kName, ": x must be 2-dimensional (m, k), got ", x.sym_sizes());
  check_vector(kName, "gamma", gamma, x, weight);
  check_vector(kName, "beta", beta, x, weight);
  check_running(x, weight, mean, variance);
  TORCH_CHECK_VALUE(mean || x.sym_size(0) != 1, kName,
                    ": x must have more than one row where the batch's statistics are taken, got ", x.sym_sizes());
  TORCH_CHECK_VALUE(eps >= 0 && std::isfinite(eps), kName, ": eps must be finite and >= 0, got ", eps);
  check_slope(kName, slope);
}

at::TensorOptions vector_options(const Tensor& x) { return x.options().dtype(at::toOpMathType(x.scalar_type())); }

Outputs empty_outputs(const Tensor& x, const Tensor& weight, bool given, bool keep) {
  const c10::SymInt n = weight.sym_size(0);
  const c10::SymDimVector shape = {x.sym_size(0), n};
  const auto vector = [&](const c10::SymInt& length) { return at::empty_symint({length}, vector_options(x)); };
  return {at::empty_symint(shape, x.options()),
          keep ? at::empty_symint(shape, x.options()) : at::empty({0}, x.options()), vector(n), vector(n),
          vector(given ? c10::SymInt(0) : n)};
}

// As a backend takes it, or undefined.
Tensor widened(const optional<Tensor>& vector, const Tensor& x) {
  return vector && vector->defined() ? vector->to(at::toOpMathType(x.scalar_type())).contiguous() : Tensor();
}

const void* data_of(const Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }

Outputs forward(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, const optional<Tensor>& gamma,
                const optional<Tensor>& beta, const optional<Tensor>& given_mean,
                const optional<Tensor>& given_variance, double eps, c10::string_view activation, double slope,
                bool keep) {
  const Activation act = parse_activation(kName, activation);
  check(x, weight, bias, gamma, beta, given_mean, given_variance, eps, slope);
  auto outputs = empty_outputs(x, weight, given_mean.has_value(), keep);
  auto& [y, h, mean, inverse, variance] = outputs;
  if (x.size(0) == 0) {
    for (const Tensor& vector : {mean, inverse, variance}) vector.zero_();
    return outputs;
  }
  const Tensor dense_bias = bias ? bias->contiguous() : Tensor();
  const Tensor wide_gamma = widened(gamma, x), wide_beta = widened(beta, x), wide_mean = widened(given_mean, x),
               wide_variance = widened(given_variance, x);
  Run run(x.device());
  const bool library = library_products(*run, x, weight, 0).forward;
  if (library) library_forward(x, weight, bias, {}, keep ? h : y);
  run->linear_batch_norm_act_forward({dtype_of(x), matrix_of(x), matrix_of(weight), data_of(dense_bias),
                                      data_of(wide_gamma), data_of(wide_beta), data_of(wide_mean),
                                      data_of(wide_variance), eps, act, slope, keep ? h.mutable_data_ptr() : nullptr,
                                      y.mutable_data_ptr(), mean.mutable_data_ptr(), inverse.mutable_data_ptr(),
                                      given_mean ? nullptr : variance.mutable_data_ptr(), run.resources(), library});
  return outputs;
}

Outputs meta(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, const optional<Tensor>& gamma,
             const optional<Tensor>& beta, const optional<Tensor>& mean, const optional<Tensor>& variance, double eps,
             c10::string_view activation, double slope, bool keep) {
  parse_activation(kName, activation);
  check(x, weight, bias, gamma, beta, mean, variance, eps, slope);
  return empty_outputs(x, weight, mean.has_value(), keep);
}

// Checks, and makes the empty results.
Outputs empty_grads(const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& h, const Tensor& y,
                    const optional<Tensor>& gamma, const Tensor& mean, const Tensor& inverse, const Mask& mask) {
  check_layer(kBackward, x, weight, std::nullopt);
  TORCH_CHECK_VALUE(x.dim() == 2, kBackward, ": x must be 2-dimensional (m, k), got ", x.sym_sizes());
  const std::pair<const char*, const Tensor*> matrices[] = {{"grad_y", &grad_y}, {"h", &h}, {"y", &y}};
  for (const auto& [name, tensor] : matrices) {
    check_shape(kBackward, name, *tensor, with_last(x, weight.sym_size(0)));
    check_same(kBackward, name, *tensor, "x", x);
  }
  check_vector(kBackward, "gamma", gamma, x, weight);
  check_vector(kBackward, "mean", mean, x, weight);
  check_vector(kBackward, "inverse", inverse, x, weight);
  auto [grad_x, grad_weight, grad_bias] = empty_layer_grads(x, weight, mask);
  const auto vector = [&] { return at::empty_symint({weight.sym_size(0)}, vector_options(x)); };
  return {grad_x, grad_weight, grad_bias, vector(), vector()};
}

Outputs backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& h, const Tensor& y,
                 const optional<Tensor>& gamma, const Tensor& mean, const Tensor& inverse, bool batch_statistics,
                 c10::string_view activation, double slope, Mask mask) {
  const Activation act = parse_activation(kBackward, activation);
  auto grads = empty_grads(grad_y, x, weight, h, y, gamma, mean, inverse, mask);
  auto& [grad_x, grad_weight, grad_bias, grad_gamma, grad_beta] = grads;
  if (x.size(0) == 0) {
    for (const Tensor& grad : {grad_x, grad_weight, grad_bias, grad_gamma, grad_beta}) grad.zero_();
    return grads;
  }
  const Tensor dense_grad = grad_y.contiguous(), dense_h = h.contiguous(), dense_y = y.contiguous();
  const Tensor wide_gamma = widened(gamma, x), wide_mean = widened(mean, x), wide_inverse = widened(inverse, x);
  const Tensor grad_h = at::empty_like(dense_h);
  Run run(x.device());
  const bool library = library_products(*run, x, weight, 0).backward;
  const auto wanted = [&](int i, const Tensor& grad) {
    return mask[size_t(i)] && !library ? grad.mutable_data_ptr() : nullptr;
  };
  run->linear_batch_norm_act_backward(
      {dtype_of(x), matrix_of(x), matrix_of(weight), dense_grad.const_data_ptr(), dense_h.const_data_ptr(),
       dense_y.const_data_ptr(), data_of(wide_gamma), wide_mean.const_data_ptr(), wide_inverse.const_data_ptr(),
       batch_statistics, act, slope, grad_h.mutable_data_ptr(), grad_gamma.mutable_data_ptr(),
       grad_beta.mutable_data_ptr(), wanted(0, grad_x), wanted(1, grad_weight), wanted(2, grad_bias), run.resources()});
  if (library) {
    const Mask of_layer = {mask[0], mask[1], mask[2] && !batch_statistics};
    library_backward(grad_h, x, weight, {}, of_layer, {grad_x, grad_weight, grad_bias});
    if (mask[2] && batch_statistics) grad_bias.zero_();
  }
  return grads;
}

Outputs backward_meta(const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& h, const Tensor& y,
                      const optional<Tensor>& gamma, const Tensor& mean, const Tensor& inverse, bool,
                      c10::string_view activation, double, Mask mask) {
  parse_activation(kBackward, activation);
  return empty_grads(grad_y, x, weight, h, y, gamma, mean, inverse, mask);
}

Outputs call_forward(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, const optional<Tensor>& gamma,
                     const optional<Tensor>& beta, const optional<Tensor>& mean, const optional<Tensor>& variance,
                     double eps, c10::string_view activation, double slope, bool keep) {
  static const auto op =
      find_op<Outputs(const Tensor&, const Tensor&, const optional<Tensor>&, const optional<Tensor>&,
                      const optional<Tensor>&, const optional<Tensor>&, const optional<Tensor>&, double,
                      c10::string_view, double, bool)>("pygan::linear_batch_norm_act_forward");
  return op.call(x, weight, bias, gamma, beta, mean, variance, eps, activation, slope, keep);
}

Outputs call_backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& h, const Tensor& y,
                      const optional<Tensor>& gamma, const Tensor& mean, const Tensor& inverse, bool batch_statistics,
                      c10::string_view activation, double slope, Mask mask) {
  static const auto op =
      find_op<Outputs(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                      const optional<Tensor>&, const Tensor&, const Tensor&, bool, c10::string_view, double, Mask)>(
          "pygan::linear_batch_norm_act_backward");
  return op.call(grad_y, x, weight, h, y, gamma, mean, inverse, batch_statistics, activation, slope, mask);
}

struct BatchNormSettings {
  int64_t activation;
  double slope, eps;
  bool batch_statistics;
  at::ScalarType beta;
};

optional<Tensor> given(const Tensor& tensor) { return tensor.defined() ? optional<Tensor>(tensor) : std::nullopt; }

// The backward pass in differentiable operations, for gradients of gradients: statistics are functions of x again.
std::array<Tensor, 5> differentiable_backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight,
                                              const Tensor& bias, const Tensor& gamma, const Tensor& y, Tensor mean,
                                              Tensor inverse, const BatchNormSettings& settings) {
  const auto type = x.scalar_type(), wide = at::toOpMathType(type);
  const Tensor h = at::linear(x, weight, given(bias)).to(wide);
  if (settings.batch_statistics) {
    mean = h.mean(0);
    inverse = (h - mean).square().mean(0).add(settings.eps).rsqrt();
  }
  const Tensor d = activation_derivative(static_cast<Activation>(settings.activation), y.to(wide), settings.slope);
  const Tensor g = d.defined() ? grad_y.to(wide) * d : grad_y.to(wide), z = (h - mean) * inverse;
  const Tensor centred = settings.batch_statistics ? g - g.mean(0) - z * (g * z).mean(0) : g;
  const Tensor grad_h = (gamma.defined() ? gamma.to(wide) * inverse * centred : inverse * centred).to(type);
  return {at::matmul(grad_h, weight), at::matmul(grad_h.t(), x),
          settings.batch_statistics ? at::zeros_symint({weight.sym_size(0)}, x.options()) : grad_h.sum(0),
          (g * z).sum(0), g.sum(0)};
}

struct BatchNormGradient {
  static constexpr const char* kName = "PyganLinearBatchNormActBackward";
  // x, weight, bias (where the batch's mean does not take it off), gamma, h, y (where the derivative needs it), mean,
  // inverse
  static constexpr int kSaved = 8, kSavedOutput = 5;
  using Settings = BatchNormSettings;

  template <class Wants>
  static variable_list backward(const std::array<Tensor, kSaved>& saved, const Settings& settings, const Wants& wants,
                                variable_list& grads) {
    if (!grads[0].defined()) return variable_list(5);
    const auto& [x, weight, bias, gamma, h, kept_y, mean, inverse] = saved;
    const Tensor& y = kept_y.defined() ? kept_y : h;
    variable_list results(5);
    const auto fill = [&](const auto& all) {
      const at::ScalarType types[] = {x.scalar_type(), x.scalar_type(), x.scalar_type(),
                                      gamma.defined() ? gamma.scalar_type() : x.scalar_type(), settings.beta};
      for (size_t i = 0; i < results.size(); ++i)
        if (wants(i)) results[i] = all[i].to(types[i]);
    };
    if (at::GradMode::is_enabled()) {
      fill(differentiable_backward(grads[0], x, weight, bias, gamma, y, mean, inverse, settings));
      return results;
    }
    const auto [grad_x, grad_weight, grad_bias, grad_gamma, grad_beta] =
        call_backward(grads[0], x, weight, h, y, given(gamma), mean, inverse, settings.batch_statistics,
                      kActivationNames[settings.activation], settings.slope, {wants(0), wants(1), wants(2)});
    fill(std::array{grad_x, grad_weight, grad_bias, grad_gamma, grad_beta});
    return results;
  }
};

Outputs forward_autograd(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                         const optional<Tensor>& gamma, const optional<Tensor>& beta, const optional<Tensor>& mean,
                         const optional<Tensor>& variance, double eps, c10::string_view activation, double slope,
                         bool keep) {
  const Outputs outputs = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_forward(x, weight, bias, gamma, beta, mean, variance, eps, activation, slope, keep);
  }();
  const auto& [y, h, used_mean, inverse, batch_variance] = outputs;
  const auto pointer = [](const optional<Tensor>& tensor) { return tensor ? &*tensor : nullptr; };
  const std::array inputs{&x, &weight, pointer(bias), pointer(gamma), pointer(beta)};
  if (records(kName, inputs)) {
    TORCH_CHECK_VALUE(keep, "linear_batch_norm_act_forward: keep must be True where a gradient is wanted");
    const Activation act = parse_activation(kName, activation);
    const optional<Tensor> none;
    record<BatchNormGradient>(
        inputs, std::array{y},
        {x, weight, (mean ? bias : none).value_or(Tensor()), gamma.value_or(Tensor()), h,
         act == Activation::identity ? Tensor() : y, used_mean, inverse},
        {static_cast<int64_t>(act), slope, eps, !mean.has_value(), beta ? beta->scalar_type() : x.scalar_type()});
  }
  return outputs;
}

// running = (1 - momentum) running + momentum now
void follow(const Tensor& running, const Tensor& now, double momentum) {
  const at::NoGradGuard no_grad;
  running.lerp_(now.to(running.scalar_type()), momentum);
}

Tensor linear_batch_norm_act(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                             const optional<Tensor>& gamma, const optional<Tensor>& beta,
                             const optional<Tensor>& running_mean, const optional<Tensor>& running_var, bool training,
                             double momentum, double eps, c10::string_view activation, double slope) {
  TORCH_CHECK_VALUE(momentum >= 0 && momentum <= 1, kName, ": momentum must be in [0, 1], got ", momentum);
  const bool of_batch = training || !(running_mean || running_var);
  const optional<Tensor> none;
  if (training) check_running(x, weight, running_mean, running_var);
  const auto [y, h, mean, inverse, variance] =
      call_forward(x, weight, bias, gamma, beta, of_batch ? none : running_mean, of_batch ? none : running_var, eps,
                   activation, slope, at::GradMode::is_enabled());
  if (training && running_mean && x.sym_size(0) != 0) {
    follow(*running_mean, mean, momentum);
    follow(*running_var, variance, momentum);
  }
  return y;
}

template <at::DeviceType device, at::DispatchKey key>
Outputs forward_autocast(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                         const optional<Tensor>& gamma, const optional<Tensor>& beta, const optional<Tensor>& mean,
                         const optional<Tensor>& variance, double eps, c10::string_view activation, double slope,
                         bool keep) {
  c10::impl::ExcludeDispatchKeyGuard off(key);
  return call_forward(lower<device>(x), lower<device>(weight), lower<device>(bias), gamma, beta, mean, variance, eps,
                      activation, slope, keep);
}

void register_kernels(torch::Library& m) {
  m.impl("linear_batch_norm_act_forward", forward);
  m.impl("linear_batch_norm_act_backward", backward);
}

}  // namespace

TORCH_LIBRARY_IMPL(pygan, CompositeImplicitAutograd, m) { m.impl("linear_batch_norm_act", linear_batch_norm_act); }
// torch.func.vmap: the parts are batched
TORCH_LIBRARY_IMPL(pygan, FuncTorchBatchedDecomposition, m) { m.impl("linear_batch_norm_act", linear_batch_norm_act); }

PYGAN_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(pygan, Meta, m) {
  m.impl("linear_batch_norm_act_forward", meta);
  m.impl("linear_batch_norm_act_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(pygan, Autograd, m) { m.impl("linear_batch_norm_act_forward", forward_autograd); }

TORCH_LIBRARY_IMPL(pygan, AutocastCPU, m) {
  m.impl("linear_batch_norm_act_forward", forward_autocast<at::kCPU, at::DispatchKey::AutocastCPU>);
}

TORCH_LIBRARY_IMPL(pygan, AutocastCUDA, m) {
  m.impl("linear_batch_norm_act_forward", forward_autocast<at::kCUDA, at::DispatchKey::AutocastCUDA>);
}

}  // namespace pygan
