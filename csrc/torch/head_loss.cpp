// The discriminator's last layer with its loss: `head_loss` is what users call; `head_loss_forward` also returns what
// backward needs.
//
// That is not the gradient of the hidden activations: it is slopes (m) times weight (k), of rank one, so backward
// writes it from those, scaled by any upstream gradient, and never reads `hidden` again. The gradients of weight and
// bias do need every row; they are summed in the forward pass, for an upstream gradient of 1, and backward scales
// k + 1 numbers. So forward and backward together read `hidden` once and write its gradient once. Only a gradient of
// the logits themselves costs another reading, for the weight.
#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <torch/library.h>

#include "checks.h"
#include "device.h"
#include "double_backward.h"
#include "find_op.h"
#include "node.h"

namespace pygan {
namespace {

using at::Tensor;
using std::optional;
using torch::autograd::variable_list;
using Mask = std::array<bool, 3>;
using Pair = std::tuple<Tensor, Tensor>;
using Grads = std::tuple<Tensor, Tensor, Tensor>;
using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // loss, logits, slopes, sums

constexpr const char* kOp = "head_loss";
constexpr const char* kBackward = "head_loss_backward";

constexpr const char* name_of(GanTerm generated) {
  return generated == GanTerm::fake ? "discriminator" : generated == GanTerm::minimax ? "minimax" : "non_saturating";
}

void check_rows(const char* op, const Tensor& hidden, const Tensor& weight) {
  check_floating(op, "hidden", hidden);
  TORCH_CHECK_VALUE(hidden.dim() == 2, op, ": hidden must be 2-dimensional (m, k), got ", hidden.sym_sizes());
  TORCH_CHECK_VALUE(weight.dim() == 2 && weight.sym_size(0) == 1, op, ": weight must be one row (1, k), got ",
                    weight.sym_sizes());
  TORCH_CHECK_VALUE(hidden.sym_size(1) == weight.sym_size(1), op, ": hidden ", hidden.sym_sizes(), " and weight ",
                    weight.sym_sizes(), " must have the same last dimension");
  check_same(op, "weight", weight, "hidden", hidden);
}

// The term of generated rows.
GanTerm check_kind(const char* op, const Tensor& hidden, const c10::SymInt& real_rows, c10::string_view kind,
                   double smoothing) {
  const GanTerm generated = parse_head_kind(op, kind);
  TORCH_CHECK_VALUE(real_rows >= 0 && real_rows <= hidden.sym_size(0), op, ": real_rows must be in [0, ",
                    hidden.sym_size(0), "], the rows of hidden, got ", real_rows);
  TORCH_CHECK_VALUE(smoothing >= 0 && smoothing < 1, op, ": label_smoothing must be in [0, 1), got ", smoothing);
  if (generated == GanTerm::fake) return generated;
  TORCH_CHECK_VALUE(real_rows == 0, op, ": kind '", name_of(generated),
                    "' is a loss of generated rows alone, so real_rows must be 0, got ", real_rows);
  TORCH_CHECK_VALUE(smoothing == 0, op, ": kind '", name_of(generated),
                    "' has no real rows whose label_smoothing could be ", smoothing);
  return generated;
}

GanTerm check(const Tensor& hidden, const Tensor& weight, const optional<Tensor>& bias, const c10::SymInt& real_rows,
              c10::string_view kind, double smoothing) {
  check_rows(kOp, hidden, weight);
  if (bias) {
    check_same(kOp, "bias", *bias, "hidden", hidden);
    check_shape(kOp, "bias", *bias, {1});
  }
  return check_kind(kOp, hidden, real_rows, kind, smoothing);
}

Outputs empty_outputs(const Tensor& hidden, bool with_sums) {
  const c10::SymInt m = hidden.sym_size(0), count = with_sums ? hidden.sym_size(1) + 1 : c10::SymInt(0);
  const auto wide = hidden.options().dtype(at::toOpMathType(hidden.scalar_type()));
  return {at::empty({}, hidden.options()), at::empty_symint({m}, hidden.options()), at::empty_symint({m}, wide),
          at::empty_symint({count}, wide)};
}

// Rows may lie apart; the elements of a row follow one another in what kernels take.
Tensor with_dense_rows(const Tensor& hidden) {
  return hidden.size(1) < 2 || hidden.stride(1) == 1 ? hidden : hidden.contiguous();
}

Outputs forward(const Tensor& hidden, const Tensor& weight, const optional<Tensor>& bias, int64_t real_rows,
                c10::string_view kind, double smoothing, bool with_sums) {
  const GanTerm generated = check(hidden, weight, bias, real_rows, kind, smoothing);
  auto outputs = empty_outputs(hidden, with_sums);
  auto& [loss, logits, slopes, sums] = outputs;
  const Tensor rows = with_dense_rows(hidden), dense_weight = weight.contiguous();
  Run run(hidden.device());
  run->head_loss_forward({dtype_of(hidden), matrix_of(rows), dense_weight.const_data_ptr(),
                          bias ? bias->const_data_ptr() : nullptr, real_rows, generated, smoothing,
                          loss.mutable_data_ptr(), logits.mutable_data_ptr(), slopes.mutable_data_ptr(),
                          with_sums ? sums.mutable_data_ptr() : nullptr, run.resources()});
  return outputs;
}

Outputs meta(const Tensor& hidden, const Tensor& weight, const optional<Tensor>& bias, c10::SymInt real_rows,
             c10::string_view kind, double smoothing, bool with_sums) {
  check(hidden, weight, bias, real_rows, kind, smoothing);
  return empty_outputs(hidden, with_sums);
}

// What the backward op is called with.
struct Incoming {
  const optional<Tensor>&grad_loss, &grad_logits;
  const Tensor &hidden, &weight, &logits, &slopes, &sums;
};

Grads empty_grads(const Incoming& in, const c10::SymInt& real_rows, c10::string_view kind, double smoothing,
                  const Mask& mask) {
  check_rows(kBackward, in.hidden, in.weight);
  check_kind(kBackward, in.hidden, real_rows, kind, smoothing);
  const c10::SymInt m = in.hidden.sym_size(0), k = in.hidden.sym_size(1);
  const auto check_given = [&](const char* argument, const Tensor& tensor, c10::SymIntArrayRef shape) {
    check_shape(kBackward, argument, tensor, shape);
    check_same(kBackward, argument, tensor, "hidden", in.hidden);
  };
  const auto check_wide = [&](const char* argument, const Tensor& tensor) {
    const auto wide = at::toOpMathType(in.hidden.scalar_type());
    TORCH_CHECK_TYPE(tensor.scalar_type() == wide, kBackward, ": ", argument, " must be ", wide, ", got ",
                     tensor.scalar_type());
  };
  if (in.grad_loss) check_given("grad_loss", *in.grad_loss, {});
  if (in.grad_logits) check_given("grad_logits", *in.grad_logits, {m});
  check_given("logits", in.logits, {m});
  check_shape(kBackward, "slopes", in.slopes, {m});
  check_wide("slopes", in.slopes);
  if (in.sums.sym_numel() != 0) check_shape(kBackward, "sums", in.sums, {k + 1});
  check_wide("sums", in.sums);
  return empty_layer_grads(in.hidden, in.weight, mask);
}

Grads backward(const optional<Tensor>& grad_loss, const optional<Tensor>& grad_logits, const Tensor& hidden,
               const Tensor& weight, const Tensor& logits, const Tensor& slopes, const Tensor& sums, int64_t real_rows,
               c10::string_view kind, double smoothing, Mask mask) {
  auto grads =
      empty_grads({grad_loss, grad_logits, hidden, weight, logits, slopes, sums}, real_rows, kind, smoothing, mask);
  auto& [grad_hidden, grad_weight, grad_bias] = grads;
  const Tensor rows = with_dense_rows(hidden), dense_weight = weight.contiguous();
  const Tensor dense_slopes = slopes.contiguous(), dense_sums = sums.contiguous();
  const Tensor dense_grad_logits = grad_logits ? grad_logits->contiguous() : Tensor();
  Run run(hidden.device());
  run->head_loss_backward(
      {dtype_of(hidden), matrix_of(rows), dense_weight.const_data_ptr(),
       grad_loss ? grad_loss->const_data_ptr() : nullptr, grad_logits ? dense_grad_logits.const_data_ptr() : nullptr,
       dense_slopes.const_data_ptr(), sums.numel() ? dense_sums.const_data_ptr() : nullptr,
       mask[0] ? grad_hidden.mutable_data_ptr() : nullptr, mask[1] ? grad_weight.mutable_data_ptr() : nullptr,
       mask[2] ? grad_bias.mutable_data_ptr() : nullptr, run.resources()});
  return grads;
}

Grads backward_meta(const optional<Tensor>& grad_loss, const optional<Tensor>& grad_logits, const Tensor& hidden,
                    const Tensor& weight, const Tensor& logits, const Tensor& slopes, const Tensor& sums,
                    c10::SymInt real_rows, c10::string_view kind, double smoothing, Mask mask) {
  return empty_grads({grad_loss, grad_logits, hidden, weight, logits, slopes, sums}, real_rows, kind, smoothing, mask);
}

Outputs call_forward(const Tensor& hidden, const Tensor& weight, const optional<Tensor>& bias, c10::SymInt real_rows,
                     c10::string_view kind, double smoothing, bool with_sums) {
  static const auto op = find_op<Outputs(const Tensor&, const Tensor&, const optional<Tensor>&, c10::SymInt,
                                         c10::string_view, double, bool)>("pygan::head_loss_forward");
  return op.call(hidden, weight, bias, std::move(real_rows), kind, smoothing, with_sums);
}

Grads call_backward(const Incoming& in, c10::SymInt real_rows, c10::string_view kind, double smoothing, Mask mask) {
  static const auto op =
      find_op<Grads(const optional<Tensor>&, const optional<Tensor>&, const Tensor&, const Tensor&, const Tensor&,
                    const Tensor&, const Tensor&, c10::SymInt, c10::string_view, double, Mask)>(
          "pygan::head_loss_backward");
  return op.call(in.grad_loss, in.grad_logits, in.hidden, in.weight, in.logits, in.slopes, in.sums,
                 std::move(real_rows), kind, smoothing, mask);
}

struct Settings {
  c10::SymInt real_rows;
  GanTerm generated;
  double smoothing;
};

optional<Tensor> if_defined(const Tensor& tensor) { return tensor.defined() ? optional<Tensor>(tensor) : std::nullopt; }

// Of the mean over a kind of rows.
TermDerivatives mean_derivatives(GanTerm term, const Tensor& logits, double smoothing) {
  const auto [slope, bend] = term_derivatives(term, logits, smoothing);
  const double n = double(logits.sym_numel().guard_int(__FILE__, __LINE__));
  return {slope / n, bend / n};
}

TermDerivatives derivatives(const Settings& settings, const Tensor& logits) {
  if (settings.generated != GanTerm::fake) return mean_derivatives(settings.generated, logits, 0);
  const c10::SymInt generated_rows = logits.sym_size(0) - settings.real_rows;
  const auto real = mean_derivatives(GanTerm::real, logits.narrow_symint(0, 0, settings.real_rows), settings.smoothing);
  const auto fake = mean_derivatives(GanTerm::fake, logits.narrow_symint(0, settings.real_rows, generated_rows), 0);
  return {at::cat({real.slope, fake.slope}), at::cat({real.bend, fake.bend})};
}

// Backward as a function of grad_loss, grad_logits, hidden, weight and logits: it is a layer's, with the gradient
// e = grad_loss * slope(logits) + grad_logits of its outputs.
struct HeadLossDoubleBackward {
  static constexpr const char* kName = "PyganHeadLossBackwardBackward";
  static constexpr int kSaved = 5, kSavedOutput = -1;
  using Settings = pygan::Settings;

  template <class Wants>
  static variable_list backward(const std::array<Tensor, 5>& saved, const Settings& settings, const Wants&,
                                variable_list& cotangents) {
    const auto& [grad_loss, grad_logits, hidden, weight, logits] = saved;
    const auto type = hidden.scalar_type(), wide = at::toOpMathType(type);
    const auto [slope, bend] = derivatives(settings, logits.to(wide));
    Tensor e = grad_logits.defined() ? grad_logits.to(wide) : Tensor();
    if (grad_loss.defined()) e = e.defined() ? e + grad_loss.to(wide) * slope : grad_loss.to(wide) * slope;
    if (!e.defined()) return {{}, {}, {}, {}, {}};
    const Tensor column = e.to(type).unsqueeze(1);
    const Tensor &v_hidden = cotangents[0], &v_weight = cotangents[1];
    const Tensor grad_hidden = v_weight.defined() ? at::matmul(column, v_weight) : Tensor();
    const Tensor grad_weight = v_hidden.defined() ? at::matmul(column.t(), v_hidden) : Tensor();
    const Tensor grad_e = cotangent_of_g({}, cotangents, hidden, weight);
    if (!grad_e.defined()) return {{}, {}, grad_hidden, grad_weight, {}};
    const Tensor along = grad_e.squeeze(1).to(wide);
    return {grad_loss.defined() ? (along * slope).sum().to(type) : Tensor(),
            grad_logits.defined() ? along.to(type) : Tensor(), grad_hidden, grad_weight,
            grad_loss.defined() ? (along * grad_loss.to(wide) * bend).to(type) : Tensor()};
  }
};

struct HeadLossGradient {
  static constexpr const char* kName = "PyganHeadLossBackward";
  static constexpr int kSaved = 5, kSavedOutput = 2;
  using Settings = pygan::Settings;

  template <class Wants>
  static variable_list backward(const std::array<Tensor, 5>& saved, const Settings& settings, const Wants& wants,
                                variable_list& grads) {
    if (!grads[0].defined() && !grads[1].defined()) return {{}, {}, {}};
    const auto& [hidden, weight, logits, slopes, sums] = saved;
    const Mask mask = {wants(0), wants(1), wants(2)};
    const auto grad_loss = if_defined(grads[0]), grad_logits = if_defined(grads[1]);
    const auto wanted =
        defined_where(call_backward({grad_loss, grad_logits, hidden, weight, logits, slopes, sums}, settings.real_rows,
                                    name_of(settings.generated), settings.smoothing, mask),
                      mask);
    return {wanted.begin(), wanted.end()};
  }
};

Outputs forward_autograd(const Tensor& hidden, const Tensor& weight, const optional<Tensor>& bias,
                         c10::SymInt real_rows, c10::string_view kind, double smoothing, bool with_sums) {
  const Outputs outputs = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_forward(hidden, weight, bias, real_rows, kind, smoothing, with_sums);
  }();
  const auto& [loss, logits, slopes, sums] = outputs;
  const std::array inputs{&hidden, &weight, bias ? &*bias : nullptr};
  if (records(kOp, inputs))
    record<HeadLossGradient>(inputs, std::array{loss, logits}, {hidden, weight, logits, slopes, sums},
                             {std::move(real_rows), parse_head_kind(kOp, kind), smoothing});
  return outputs;
}

Grads backward_autograd(const optional<Tensor>& grad_loss, const optional<Tensor>& grad_logits, const Tensor& hidden,
                        const Tensor& weight, const Tensor& logits, const Tensor& slopes, const Tensor& sums,
                        c10::SymInt real_rows, c10::string_view kind, double smoothing, Mask mask) {
  const Grads grads = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_backward({grad_loss, grad_logits, hidden, weight, logits, slopes, sums}, real_rows, kind, smoothing,
                         mask);
  }();
  const std::array inputs{grad_loss ? &*grad_loss : nullptr, grad_logits ? &*grad_logits : nullptr, &hidden, &weight,
                          &logits};
  if (records(kBackward, inputs))
    record<HeadLossDoubleBackward>(
        inputs, defined_where(grads, mask),
        {grad_loss.value_or(Tensor()), grad_logits.value_or(Tensor()), hidden, weight, logits},
        {std::move(real_rows), parse_head_kind(kBackward, kind), smoothing});
  return grads;
}

// The sums are made where backward may ask for them.
Pair head_loss(const Tensor& hidden, const Tensor& weight, const optional<Tensor>& bias, c10::SymInt real_rows,
               c10::string_view kind, double smoothing) {
  const bool with_sums = at::GradMode::is_enabled() && (weight.requires_grad() || (bias && bias->requires_grad()));
  auto [loss, logits, slopes, sums] =
      call_forward(hidden, weight, bias, std::move(real_rows), kind, smoothing, with_sums);
  return {loss, logits};
}

// In fp32, as autocast runs torch's own losses and ours.
template <at::DeviceType device, at::DispatchKey key>
Outputs forward_autocast(const Tensor& hidden, const Tensor& weight, const optional<Tensor>& bias,
                         c10::SymInt real_rows, c10::string_view kind, double smoothing, bool with_sums) {
  c10::impl::ExcludeDispatchKeyGuard off(key);
  const auto widened = [](const auto& argument) { return at::autocast::cached_cast(at::kFloat, argument, device); };
  return call_forward(widened(hidden), widened(weight), widened(bias), std::move(real_rows), kind, smoothing,
                      with_sums);
}

void register_kernels(torch::Library& m) {
  m.impl("head_loss_forward", forward);
  m.impl("head_loss_backward", backward);
}

}  // namespace

TORCH_LIBRARY_IMPL(pygan, CompositeImplicitAutograd, m) { m.impl("head_loss", head_loss); }
// torch.func.vmap: the parts are batched
TORCH_LIBRARY_IMPL(pygan, FuncTorchBatchedDecomposition, m) { m.impl("head_loss", head_loss); }

PYGAN_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(pygan, Meta, m) {
  m.impl("head_loss_forward", meta);
  m.impl("head_loss_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(pygan, Autograd, m) {
  m.impl("head_loss_forward", forward_autograd);
  m.impl("head_loss_backward", backward_autograd);
}

TORCH_LIBRARY_IMPL(pygan, AutocastCPU, m) {
  m.impl("head_loss_forward", forward_autocast<at::kCPU, at::DispatchKey::AutocastCPU>);
}

TORCH_LIBRARY_IMPL(pygan, AutocastCUDA, m) {
  m.impl("head_loss_forward", forward_autocast<at::kCUDA, at::DispatchKey::AutocastCUDA>);
}

}  // namespace pygan
