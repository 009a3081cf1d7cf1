// act(dropout(x) W^T + b) as a torch op: device kernels, meta, autograd (twice differentiable), autocast.
#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
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

void check(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, double slope, double dropout) {
  check_layer("linear_act", x, weight, bias);
  check_slope("linear_act", slope);
  check_probability("linear_act", "dropout", dropout);
}

Tensor forward(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, c10::string_view activation,
               double slope, double dropout, int64_t seed, int64_t offset) {
  const Activation act = parse_activation("linear_act", activation);
  check(x, weight, bias, slope, dropout);
  const Tensor rows = as_rows(x);
  const Tensor dense_bias = bias ? bias->contiguous() : Tensor();
  Tensor y = at::empty_symint(with_last(x, weight.sym_size(0)), x.options());
  Run run(x.device());
  const Dropout dropping{dropout, uint64_t(seed), uint64_t(offset)};
  const bool library = library_products(*run, x, weight, dropout).forward;
  if (library) library_forward(x, weight, bias, dropping, as_rows(y));
  run->linear_act_forward({dtype_of(x), matrix_of(rows), matrix_of(weight),
                           bias && !library ? dense_bias.const_data_ptr() : nullptr, act, slope, dropping,
                           y.mutable_data_ptr(), run.resources(), library ? y.const_data_ptr() : nullptr});
  return y;
}

Tensor meta(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, c10::string_view activation,
            double slope, double dropout, c10::SymInt, c10::SymInt) {
  parse_activation("linear_act", activation);
  check(x, weight, bias, slope, dropout);
  return at::empty_symint(with_last(x, weight.sym_size(0)), x.options());
}

using Grads = std::tuple<Tensor, Tensor, Tensor>;

void check_backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& y) {
  check_layer("linear_act_backward", x, weight, std::nullopt);
  const auto shape = with_last(x, weight.sym_size(0));
  check_shape("linear_act_backward", "grad_y", grad_y, shape);
  check_shape("linear_act_backward", "y", y, shape);
  check_same("linear_act_backward", "grad_y", grad_y, "x", x);
  check_same("linear_act_backward", "y", y, "x", x);
}

Grads backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& y,
               c10::string_view activation, double slope, double dropout, int64_t seed, int64_t offset, Mask mask) {
  const Activation act = parse_activation("linear_act_backward", activation);
  check_backward(grad_y, x, weight, y);
  const Tensor grad_rows = as_rows(grad_y), rows = as_rows(x), dense_y = y.contiguous();
  auto grads = empty_layer_grads(x, weight, mask);
  auto& [grad_x, grad_weight, grad_bias] = grads;
  Run run(x.device());
  const Dropout dropping{dropout, uint64_t(seed), uint64_t(offset)};
  const LinearActBackward op{dtype_of(x),
                             matrix_of(grad_rows),
                             matrix_of(rows),
                             matrix_of(weight),
                             dense_y.const_data_ptr(),
                             act,
                             slope,
                             dropping,
                             mask[0] ? grad_x.mutable_data_ptr() : nullptr,
                             mask[1] ? grad_weight.mutable_data_ptr() : nullptr,
                             mask[2] ? grad_bias.mutable_data_ptr() : nullptr,
                             run.resources()};
  if (library_products(*run, x, weight, dropout).backward) {
    const Tensor g = at::empty({rows.size(0), weight.size(0)}, x.options());
    run->linear_act_grad(op, g.mutable_data_ptr());
    library_backward(g, x, weight, dropping, mask, grads);
  } else {
    run->linear_act_backward(op);
  }
  return grads;
}

Grads backward_meta(const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& y,
                    c10::string_view activation, double, double, c10::SymInt, c10::SymInt, Mask mask) {
  parse_activation("linear_act_backward", activation);
  check_backward(grad_y, x, weight, y);
  return empty_layer_grads(x, weight, mask);
}

Tensor call_forward(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, c10::string_view activation,
                    double slope, double dropout, c10::SymInt seed, c10::SymInt offset) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, const optional<Tensor>&, c10::string_view, double,
                                        double, c10::SymInt, c10::SymInt)>("pygan::linear_act");
  return op.call(x, weight, bias, activation, slope, dropout, std::move(seed), std::move(offset));
}

Grads call_backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& y,
                    c10::string_view activation, double slope, double dropout, c10::SymInt seed, c10::SymInt offset,
                    Mask mask) {
  static const auto op = find_op<Grads(const Tensor&, const Tensor&, const Tensor&, const Tensor&, c10::string_view,
                                       double, double, c10::SymInt, c10::SymInt, Mask)>("pygan::linear_act_backward");
  return op.call(grad_y, x, weight, y, activation, slope, dropout, std::move(seed), std::move(offset), mask);
}

// d f'(y) / dy as a tensor, or undefined where it is zero.
Tensor derivative_slope(Activation activation, const Tensor& y) {
  switch (activation) {
    case Activation::tanh:
      return -2 * y;
    case Activation::sigmoid:
      return 1 - 2 * y;
    case Activation::elu:
      return (y <= 0).to(y.scalar_type());
    case Activation::softplus:
      return (-y).exp();
    default:
      return {};
  }
}

// The gradients of backward's inputs. With g = grad_y * f'(y), grad_x = mask(g W), grad_W = g^T mask(x), grad_b =
// sum g, and the cotangents v_x, v_W, v_b of the three: dg = mask(v_x) W^T + mask(x) v_W^T + v_b; dW = g^T mask(v_x) and
// dx = mask(g v_W) are the same op again, which makes g on the way into the product.
struct LinearActDoubleBackward {
  static constexpr const char* kName = "PyganLinearActBackwardBackward";
  static constexpr int kSaved = 4, kSavedOutput = -1;
  using Settings = LayerSettings;

  template <class Wants>
  static variable_list backward(const std::array<Tensor, 4>& saved, const Settings& settings, const Wants& wants,
                                variable_list& cotangents) {
    const auto& [grad_y, x, weight, y] = saved;
    const Tensor &v_x = cotangents[0], &v_weight = cotangents[1];
    const Activation activation = static_cast<Activation>(settings.kind);
    const auto again = [&](const Tensor& x, const Tensor& weight, Mask mask) {
      return call_backward(grad_y, x, weight, y, kActivationNames[settings.kind], settings.slope, settings.dropout,
                           settings.seed, settings.offset, mask);
    };
    Tensor grad_grad_y, grad_x, grad_weight, grad_of_y;
    if (wants(2) && v_x.defined()) grad_weight = std::get<1>(again(v_x, weight, {false, true, false}));
    if (wants(1) && v_weight.defined()) grad_x = std::get<0>(again(x, v_weight, {true, false, false}));

    const auto type = y.scalar_type(), wide = at::toOpMathType(type);  // factors of half types meet in fp32
    const Tensor wide_y = y.to(wide);
    const Tensor bend = wants(3) ? derivative_slope(activation, wide_y) : Tensor();
    if (!wants(0) && !bend.defined()) return {{}, grad_x, grad_weight, {}};
    const Tensor grad_g = cotangent_of_g(settings, cotangents, x, weight);
    if (grad_g.defined()) {
      const Tensor d = activation_derivative(activation, wide_y, settings.slope);
      grad_grad_y = d.defined() ? (grad_g * d).to(type) : grad_g;
      if (bend.defined()) grad_of_y = (grad_g.to(wide) * grad_y * bend).to(type);
    }
    return {grad_grad_y, grad_x, grad_weight, grad_of_y};
  }
};

struct LinearActGradient {
  static constexpr const char* kName = "PyganLinearActBackward";
  static constexpr int kSaved = 3, kSavedOutput = 2;
  using Settings = LayerSettings;

  template <class Wants>
  static variable_list backward(const std::array<Tensor, 3>& saved, const Settings& settings, const Wants& wants,
                                variable_list& grads) {
    if (!grads[0].defined()) return {{}, {}, {}};
    const auto& [x, weight, kept_y] = saved;
    const Tensor& y = kept_y.defined() ? kept_y : grads[0];  // of the identity's, the shape alone is used
    const Mask mask = {wants(0), wants(1), wants(2)};
    const auto wanted =
        defined_where(call_backward(grads[0], x, weight, y, kActivationNames[settings.kind], settings.slope,
                                    settings.dropout, settings.seed, settings.offset, mask),
                      mask);
    return {wanted.begin(), wanted.end()};
  }
};

LayerSettings settings_of(c10::string_view activation, double slope, double dropout, c10::SymInt seed,
                          c10::SymInt offset) {
  return {static_cast<int64_t>(parse_activation("linear_act", activation)), slope, dropout, std::move(seed),
          std::move(offset)};
}

Tensor forward_autograd(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                        c10::string_view activation, double slope, double dropout, c10::SymInt seed,
                        c10::SymInt offset) {
  const Tensor y = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_forward(x, weight, bias, activation, slope, dropout, seed, offset);
  }();
  const std::array inputs{&x, &weight, bias ? &*bias : nullptr};
  if (records("linear_act", inputs)) {
    const LayerSettings settings = settings_of(activation, slope, dropout, std::move(seed), std::move(offset));
    const bool identity = static_cast<Activation>(settings.kind) == Activation::identity;
    record<LinearActGradient>(inputs, std::array{y}, {x, weight, identity ? Tensor() : y}, settings);
  }
  return y;
}

Grads backward_autograd(const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& y,
                        c10::string_view activation, double slope, double dropout, c10::SymInt seed, c10::SymInt offset,
                        Mask mask) {
  const Grads grads = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_backward(grad_y, x, weight, y, activation, slope, dropout, seed, offset, mask);
  }();
  const std::array inputs{&grad_y, &x, &weight, &y};
  if (records("linear_act_backward", inputs))
    record<LinearActDoubleBackward>(inputs, defined_where(grads, mask), {grad_y, x, weight, y},
                                    settings_of(activation, slope, dropout, std::move(seed), std::move(offset)));
  return grads;
}

template <at::DeviceType device, at::DispatchKey key>
Tensor forward_autocast(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                        c10::string_view activation, double slope, double dropout, c10::SymInt seed,
                        c10::SymInt offset) {
  c10::impl::ExcludeDispatchKeyGuard off(key);
  return call_forward(lower<device>(x), lower<device>(weight), lower<device>(bias), activation, slope, dropout,
                      std::move(seed), std::move(offset));
}

void register_kernels(torch::Library& m) {
  m.impl("linear_act", forward);
  m.impl("linear_act_backward", backward);
}

}  // namespace

PYGAN_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(pygan, Meta, m) {
  m.impl("linear_act", meta);
  m.impl("linear_act_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(pygan, Autograd, m) {
  m.impl("linear_act", forward_autograd);
  m.impl("linear_act_backward", backward_autograd);
}

TORCH_LIBRARY_IMPL(pygan, AutocastCPU, m) {
  m.impl("linear_act", forward_autocast<at::kCPU, at::DispatchKey::AutocastCPU>);
}

TORCH_LIBRARY_IMPL(pygan, AutocastCUDA, m) {
  m.impl("linear_act", forward_autocast<at::kCUDA, at::DispatchKey::AutocastCUDA>);
}

}  // namespace pygan
