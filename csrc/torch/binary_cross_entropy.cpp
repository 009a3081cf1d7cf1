// The cross entropy of logits or of probabilities with a tensor of targets, as torch's own losses compute it; twice
// differentiable in the input. Kernels are those of the GANs' losses, whose terms it adds to.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/sigmoid.h>
#include <torch/library.h>

#include "checks.h"
#include "device.h"
#include "find_op.h"
#include "loss.h"
#include "node.h"

namespace pygan {
namespace {

using at::Tensor;
using torch::autograd::variable_list;

constexpr const char* kForward = "binary_cross_entropy";
constexpr const char* kBackward = "binary_cross_entropy_backward";

void check(const char* op, const Tensor& input, const Tensor& target) {
  check_floating(op, "input", input);
  check_same(op, "target", target, "input", input);
  check_shape(op, "target", target, input.sym_sizes());
}

GanLossTerm term_of(const Tensor& input, const Tensor& target, bool logits, void* grad = nullptr) {
  return {logits ? GanTerm::cross_entropy : GanTerm::probability,
          input.const_data_ptr(),
          input.numel(),
          0,
          grad,
          target.const_data_ptr()};
}

Tensor forward(const Tensor& input, const Tensor& target, bool logits, c10::string_view name) {
  const Reduction reduction = parse_reduction(kForward, name);
  check(kForward, input, target);
  const Tensor dense = input.contiguous(), dense_target = target.contiguous();
  Tensor out = empty_loss(input, reduction);
  Run run(input.device());
  run->gan_loss_forward(
      {dtype_of(input), {term_of(dense, dense_target, logits)}, 1, reduction, out.mutable_data_ptr(), run.resources()});
  return out;
}

Tensor backward(const Tensor& grad, const Tensor& input, const Tensor& target, bool logits, c10::string_view name) {
  const Reduction reduction = parse_reduction(kBackward, name);
  check(kBackward, input, target);
  check_upstream(kBackward, grad, "input", input, reduction);
  const Tensor dense = input.contiguous(), dense_target = target.contiguous(), upstream = grad.contiguous();
  Tensor result = at::empty(input.sizes(), input.options());
  Run run(input.device());
  run->gan_loss_backward({dtype_of(input),
                          {term_of(dense, dense_target, logits, result.mutable_data_ptr())},
                          1,
                          reduction,
                          upstream.const_data_ptr(),
                          run.resources()});
  return result;
}

Tensor meta(const Tensor& input, const Tensor& target, bool, c10::string_view name) {
  const Reduction reduction = parse_reduction(kForward, name);
  check(kForward, input, target);
  return empty_loss(input, reduction);
}

Tensor backward_meta(const Tensor& grad, const Tensor& input, const Tensor& target, bool, c10::string_view name) {
  const Reduction reduction = parse_reduction(kBackward, name);
  check(kBackward, input, target);
  check_upstream(kBackward, grad, "input", input, reduction);
  return at::empty_symint(input.sym_sizes(), input.options());
}

Tensor call_forward(const Tensor& input, const Tensor& target, bool logits, c10::string_view reduction) {
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&, bool, c10::string_view)>("pygan::binary_cross_entropy");
  return op.call(input, target, logits, reduction);
}

Tensor call_backward(const Tensor& grad, const Tensor& input, const Tensor& target, bool logits,
                     c10::string_view reduction) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, const Tensor&, bool, c10::string_view)>(
      "pygan::binary_cross_entropy_backward");
  return op.call(grad, input, target, logits, reduction);
}

struct Settings {
  bool logits;
  Reduction reduction;

  c10::string_view reduction_name() const { return kReductionNames[int(reduction)]; }
};

// By the logit, or by the probability, with the guard of the kernel at both ends of [0, 1].
TermDerivatives derivatives(const Tensor& input, const Tensor& target, bool logits) {
  if (logits) {
    const Tensor s = at::sigmoid(input), other = at::sigmoid(-input);
    return {(1 - target) * s - target * other, s * other};  // s - target would cancel for a sure logit
  }
  const Tensor variance = ((1 - input) * input).clamp_min(1e-12);
  return {(input - target) / variance, (input * input - 2 * input * target + target) / (variance * variance)};
}

struct DoubleBackward {
  static constexpr const char* kName = "PyganBinaryCrossEntropyBackwardBackward";
  static constexpr int kSaved = 3, kSavedOutput = -1;
  using Settings = pygan::Settings;

  template <class Wants>
  static variable_list backward(const std::array<Tensor, 3>& saved, const Settings& settings, const Wants&,
                                variable_list& v) {
    if (!v[0].defined()) return {{}, {}};
    const auto& [grad, input, target] = saved;
    const auto type = at::toOpMathType(input.scalar_type());
    const auto term = derivatives(input.to(type), target.to(type), settings.logits);
    const auto second = second_order(term, v[0], grad, input, settings.reduction);
    return {second.of_grad, second.of_logits};
  }
};

struct Gradient {
  static constexpr const char* kName = "PyganBinaryCrossEntropyBackward";
  static constexpr int kSaved = 2, kSavedOutput = -1;
  using Settings = pygan::Settings;

  template <class Wants>
  static variable_list backward(const std::array<Tensor, 2>& saved, const Settings& settings, const Wants&,
                                variable_list& grads) {
    if (!grads[0].defined()) return {{}};
    return {call_backward(grads[0], saved[0], saved[1], settings.logits, settings.reduction_name())};
  }
};

void check_constant(const Tensor& target) {
  TORCH_CHECK_VALUE(!target.requires_grad() || !at::GradMode::is_enabled(), kForward,
                    ": target must not require a gradient, which this loss does not have; detach it");
}

Tensor forward_autograd(const Tensor& input, const Tensor& target, bool logits, c10::string_view reduction) {
  check_constant(target);
  const Tensor loss = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_forward(input, target, logits, reduction);
  }();
  if (records(kForward, std::array{&input, &target}))
    record<Gradient>(std::array{&input}, std::array{loss}, {input, target},
                     {logits, parse_reduction(kForward, reduction)});
  return loss;
}

Tensor backward_autograd(const Tensor& grad, const Tensor& input, const Tensor& target, bool logits,
                         c10::string_view reduction) {
  check_constant(target);
  const Tensor result = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_backward(grad, input, target, logits, reduction);
  }();
  if (records(kBackward, std::array{&grad, &input, &target}))
    record<DoubleBackward>(std::array{&grad, &input}, std::array{result}, {grad, input, target},
                           {logits, parse_reduction(kBackward, reduction)});
  return result;
}

template <at::DeviceType device, at::DispatchKey key>
Tensor autocast(const Tensor& input, const Tensor& target, bool logits, c10::string_view reduction) {
  c10::impl::ExcludeDispatchKeyGuard off(key);
  return call_forward(widened<device>(input), widened<device>(target), logits, reduction);
}

void register_kernels(torch::Library& m) {
  m.impl("binary_cross_entropy", forward);
  m.impl("binary_cross_entropy_backward", backward);
}

}  // namespace

PYGAN_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(pygan, Meta, m) {
  m.impl("binary_cross_entropy", meta);
  m.impl("binary_cross_entropy_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(pygan, Autograd, m) {
  m.impl("binary_cross_entropy", forward_autograd);
  m.impl("binary_cross_entropy_backward", backward_autograd);
}

TORCH_LIBRARY_IMPL(pygan, AutocastCPU, m) {
  m.impl("binary_cross_entropy", autocast<at::kCPU, at::DispatchKey::AutocastCPU>);
}

TORCH_LIBRARY_IMPL(pygan, AutocastCUDA, m) {
  m.impl("binary_cross_entropy", autocast<at::kCUDA, at::DispatchKey::AutocastCUDA>);
}

}  // namespace pygan
