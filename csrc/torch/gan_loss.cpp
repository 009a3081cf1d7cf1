// The discriminator's and the generator's losses on logits, differentiable twice. Reductions are summed in float64.
#include <ATen/OpMathType.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "checks.h"
#include "device.h"
#include "double_backward.h"
#include "find_op.h"
#include "loss.h"
#include "node.h"

namespace pygan {
namespace {

using at::Tensor;
using torch::autograd::variable_list;
using Pair = std::tuple<Tensor, Tensor>;

constexpr const char* kDiscriminator = "discriminator_loss";
constexpr const char* kGenerator = "generator_loss";

// The kind's index.
int check_discriminator(const Tensor& real, const Tensor& fake, c10::string_view kind, double smoothing,
                        Reduction reduction) {
  const int parsed = parse_discriminator_kind(kDiscriminator, kind);
  check_floating(kDiscriminator, "real_logits", real);
  check_same(kDiscriminator, "fake_logits", fake, "real_logits", real);
  TORCH_CHECK_VALUE(smoothing >= 0 && smoothing < 1, kDiscriminator, ": label_smoothing must be in [0, 1), got ",
                    smoothing);
  TORCH_CHECK_VALUE(smoothing == 0 || parsed == 0, kDiscriminator, ": label_smoothing must be 0 for kind '", kind,
                    "', whose real examples have no label, got ", smoothing);
  if (reduction == Reduction::none)
    TORCH_CHECK_VALUE(real.sym_sizes() == fake.sym_sizes(), kDiscriminator,
                      ": reduction 'none' needs real_logits and fake_logits of one shape, got ", real.sym_sizes(),
                      " and ", fake.sym_sizes());
  return parsed;
}

GanLossTerm term_of(GanTerm term, const Tensor& dense, double smoothing, void* grad = nullptr) {
  return {term, dense.const_data_ptr(), dense.numel(), smoothing, grad};
}

Tensor discriminator_forward(const Tensor& real, const Tensor& fake, c10::string_view kind, double smoothing,
                             c10::string_view name) {
  const Reduction reduction = parse_reduction(kDiscriminator, name);
  const auto& terms = kDiscriminatorTerms[check_discriminator(real, fake, kind, smoothing, reduction)];
  const Tensor dense_real = real.contiguous(), dense_fake = fake.contiguous();
  Tensor out = empty_loss(real, reduction);
  Run run(real.device());
  run->gan_loss_forward({dtype_of(real),
                         {term_of(terms[0], dense_real, smoothing), term_of(terms[1], dense_fake, 0)},
                         2,
                         reduction,
                         out.mutable_data_ptr(),
                         run.resources()});
  return out;
}

Pair discriminator_backward(const Tensor& grad, const Tensor& real, const Tensor& fake, c10::string_view kind,
                            double smoothing, c10::string_view name) {
  const Reduction reduction = parse_reduction("discriminator_loss_backward", name);
  const auto& terms = kDiscriminatorTerms[check_discriminator(real, fake, kind, smoothing, reduction)];
  check_upstream("discriminator_loss_backward", grad, "real_logits", real, reduction);
  const Tensor dense_real = real.contiguous(), dense_fake = fake.contiguous(), upstream = grad.contiguous();
  Tensor grad_real = at::empty(real.sizes(), real.options()), grad_fake = at::empty(fake.sizes(), fake.options());
  Run run(real.device());
  run->gan_loss_backward({dtype_of(real),
                          {term_of(terms[0], dense_real, smoothing, grad_real.mutable_data_ptr()),
                           term_of(terms[1], dense_fake, 0, grad_fake.mutable_data_ptr())},
                          2,
                          reduction,
                          upstream.const_data_ptr(),
                          run.resources()});
  return {grad_real, grad_fake};
}

Tensor generator_forward(const Tensor& fake, c10::string_view kind, c10::string_view name) {
  const GanTerm term = kGeneratorTerms[parse_generator_kind(kind)];
  const Reduction reduction = parse_reduction(kGenerator, name);
  check_floating(kGenerator, "fake_logits", fake);
  const Tensor dense = fake.contiguous();
  Tensor out = empty_loss(fake, reduction);
  Run run(fake.device());
  run->gan_loss_forward(
      {dtype_of(fake), {term_of(term, dense, 0)}, 1, reduction, out.mutable_data_ptr(), run.resources()});
  return out;
}

Tensor generator_backward(const Tensor& grad, const Tensor& fake, c10::string_view kind, c10::string_view name) {
  const GanTerm term = kGeneratorTerms[parse_generator_kind(kind)];
  const Reduction reduction = parse_reduction("generator_loss_backward", name);
  check_floating("generator_loss_backward", "fake_logits", fake);
  check_upstream("generator_loss_backward", grad, "fake_logits", fake, reduction);
  const Tensor dense = fake.contiguous(), upstream = grad.contiguous();
  Tensor result = at::empty(fake.sizes(), fake.options());
  Run run(fake.device());
  run->gan_loss_backward({dtype_of(fake),
                          {term_of(term, dense, 0, result.mutable_data_ptr())},
                          1,
                          reduction,
                          upstream.const_data_ptr(),
                          run.resources()});
  return result;
}

Tensor discriminator_meta(const Tensor& real, const Tensor& fake, c10::string_view kind, double smoothing,
                          c10::string_view name) {
  const Reduction reduction = parse_reduction(kDiscriminator, name);
  check_discriminator(real, fake, kind, smoothing, reduction);
  return empty_loss(real, reduction);
}

Pair discriminator_backward_meta(const Tensor& grad, const Tensor& real, const Tensor& fake, c10::string_view kind,
                                 double smoothing, c10::string_view name) {
  const Reduction reduction = parse_reduction("discriminator_loss_backward", name);
  check_discriminator(real, fake, kind, smoothing, reduction);
  check_upstream("discriminator_loss_backward", grad, "real_logits", real, reduction);
  return {at::empty_symint(real.sym_sizes(), real.options()), at::empty_symint(fake.sym_sizes(), fake.options())};
}

Tensor generator_meta(const Tensor& fake, c10::string_view kind, c10::string_view name) {
  parse_generator_kind(kind);
  check_floating(kGenerator, "fake_logits", fake);
  return empty_loss(fake, parse_reduction(kGenerator, name));
}

Tensor generator_backward_meta(const Tensor& grad, const Tensor& fake, c10::string_view kind, c10::string_view name) {
  parse_generator_kind(kind);
  check_floating("generator_loss_backward", "fake_logits", fake);
  check_upstream("generator_loss_backward", grad, "fake_logits", fake,
                 parse_reduction("generator_loss_backward", name));
  return at::empty_symint(fake.sym_sizes(), fake.options());
}

Tensor call_discriminator(const Tensor& real, const Tensor& fake, c10::string_view kind, double smoothing,
                          c10::string_view reduction) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, c10::string_view, double, c10::string_view)>(
      "pygan::discriminator_loss");
  return op.call(real, fake, kind, smoothing, reduction);
}

Pair call_discriminator_backward(const Tensor& grad, const Tensor& real, const Tensor& fake, c10::string_view kind,
                                 double smoothing, c10::string_view reduction) {
  static const auto op =
      find_op<Pair(const Tensor&, const Tensor&, const Tensor&, c10::string_view, double, c10::string_view)>(
          "pygan::discriminator_loss_backward");
  return op.call(grad, real, fake, kind, smoothing, reduction);
}

Tensor call_generator(const Tensor& fake, c10::string_view kind, c10::string_view reduction) {
  static const auto op = find_op<Tensor(const Tensor&, c10::string_view, c10::string_view)>("pygan::generator_loss");
  return op.call(fake, kind, reduction);
}

Tensor call_generator_backward(const Tensor& grad, const Tensor& fake, c10::string_view kind,
                               c10::string_view reduction) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, c10::string_view, c10::string_view)>(
      "pygan::generator_loss_backward");
  return op.call(grad, fake, kind, reduction);
}

SecondOrder second_order(GanTerm term, const Tensor& v, const Tensor& grad, const Tensor& logits, double smoothing,
                         Reduction reduction) {
  if (!v.defined()) return {};
  const auto type = at::toOpMathType(logits.scalar_type());
  return second_order(term_derivatives(term, logits.to(type), smoothing), v, grad, logits, reduction);
}

// The settings of either loss. The generator's has one tensor of logits; `second` is undefined then.
struct Settings {
  bool pair;  // the discriminator's
  int kind;   // an index into its kinds, or into the generator's
  double smoothing;
  Reduction reduction;

  c10::string_view reduction_name() const { return kReductionNames[int(reduction)]; }
  c10::string_view kind_name() const { return pair ? kDiscriminatorKinds[kind] : kGeneratorKinds[kind]; }
  GanTerm first_term() const { return pair ? kDiscriminatorTerms[kind][0] : kGeneratorTerms[kind]; }
  GanTerm second_term() const { return kDiscriminatorTerms[kind][1]; }

  Tensor forward(const Tensor& first, const Tensor& second) const {
    return pair ? call_discriminator(first, second, kind_name(), smoothing, reduction_name())
                : call_generator(first, kind_name(), reduction_name());
  }

  Pair backward(const Tensor& grad, const Tensor& first, const Tensor& second) const {
    if (pair) return call_discriminator_backward(grad, first, second, kind_name(), smoothing, reduction_name());
    return {call_generator_backward(grad, first, kind_name(), reduction_name()), Tensor()};
  }
};

struct GanLossDoubleBackward {
  static constexpr const char* kName = "PyganGanLossBackwardBackward";
  static constexpr int kSaved = 3, kSavedOutput = -1;
  using Settings = pygan::Settings;

  template <class Wants>
  static variable_list backward(const std::array<Tensor, 3>& saved, const Settings& settings, const Wants&,
                                variable_list& v) {
    const auto& [grad, logits, fake] = saved;
    const auto first = second_order(settings.first_term(), v[0], grad, logits, settings.smoothing, settings.reduction);
    SecondOrder second;
    if (settings.pair) second = second_order(settings.second_term(), v[1], grad, fake, 0, settings.reduction);
    Tensor of_grad = first.of_grad;
    if (second.of_grad.defined()) of_grad = of_grad.defined() ? of_grad + second.of_grad : second.of_grad;
    return {of_grad, first.of_logits, second.of_logits};
  }
};

struct GanLossGradient {
  static constexpr const char* kName = "PyganGanLossBackward";
  static constexpr int kSaved = 2, kSavedOutput = -1;
  using Settings = pygan::Settings;

  template <class Wants>
  static variable_list backward(const std::array<Tensor, 2>& saved, const Settings& settings, const Wants&,
                                variable_list& grads) {
    if (!grads[0].defined()) return {{}, {}};
    auto [grad_first, grad_second] = settings.backward(grads[0], saved[0], saved[1]);
    return {grad_first, grad_second};
  }
};

Tensor loss_autograd(const char* op, const Tensor& first, const Tensor& second, const Settings& settings) {
  const Tensor loss = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return settings.forward(first, second);
  }();
  const std::array inputs{&first, &second};
  if (records(op, inputs)) record<GanLossGradient>(inputs, std::array{loss}, {first, second}, settings);
  return loss;
}

Pair loss_backward_autograd(const char* op, const Tensor& grad, const Tensor& first, const Tensor& second,
                            const Settings& settings) {
  const Pair grads = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return settings.backward(grad, first, second);
  }();
  const std::array inputs{&grad, &first, &second};
  if (records(op, inputs))
    record<GanLossDoubleBackward>(inputs, std::array{std::get<0>(grads), std::get<1>(grads)}, {grad, first, second},
                                  settings);
  return grads;
}

Settings discriminator_settings(c10::string_view kind, double smoothing, c10::string_view reduction) {
  return {true, parse_discriminator_kind(kDiscriminator, kind), smoothing, parse_reduction(kDiscriminator, reduction)};
}

Settings generator_settings(c10::string_view kind, c10::string_view reduction) {
  return {false, parse_generator_kind(kind), 0, parse_reduction(kGenerator, reduction)};
}

Tensor discriminator_autograd(const Tensor& real, const Tensor& fake, c10::string_view kind, double smoothing,
                              c10::string_view reduction) {
  return loss_autograd(kDiscriminator, real, fake, discriminator_settings(kind, smoothing, reduction));
}

Pair discriminator_backward_autograd(const Tensor& grad, const Tensor& real, const Tensor& fake, c10::string_view kind,
                                     double smoothing, c10::string_view reduction) {
  return loss_backward_autograd("discriminator_loss_backward", grad, real, fake,
                                discriminator_settings(kind, smoothing, reduction));
}

Tensor generator_autograd(const Tensor& fake, c10::string_view kind, c10::string_view reduction) {
  return loss_autograd(kGenerator, fake, {}, generator_settings(kind, reduction));
}

Tensor generator_backward_autograd(const Tensor& grad, const Tensor& fake, c10::string_view kind,
                                   c10::string_view reduction) {
  return std::get<0>(
      loss_backward_autograd("generator_loss_backward", grad, fake, {}, generator_settings(kind, reduction)));
}

template <at::DeviceType device, at::DispatchKey key>
Tensor discriminator_autocast(const Tensor& real, const Tensor& fake, c10::string_view kind, double smoothing,
                              c10::string_view reduction) {
  c10::impl::ExcludeDispatchKeyGuard off(key);
  return call_discriminator(widened<device>(real), widened<device>(fake), kind, smoothing, reduction);
}

template <at::DeviceType device, at::DispatchKey key>
Tensor generator_autocast(const Tensor& fake, c10::string_view kind, c10::string_view reduction) {
  c10::impl::ExcludeDispatchKeyGuard off(key);
  return call_generator(widened<device>(fake), kind, reduction);
}

void register_kernels(torch::Library& m) {
  m.impl("discriminator_loss", discriminator_forward);
  m.impl("discriminator_loss_backward", discriminator_backward);
  m.impl("generator_loss", generator_forward);
  m.impl("generator_loss_backward", generator_backward);
}

}  // namespace

PYGAN_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(pygan, Meta, m) {
  m.impl("discriminator_loss", discriminator_meta);
  m.impl("discriminator_loss_backward", discriminator_backward_meta);
  m.impl("generator_loss", generator_meta);
  m.impl("generator_loss_backward", generator_backward_meta);
}

TORCH_LIBRARY_IMPL(pygan, Autograd, m) {
  m.impl("discriminator_loss", discriminator_autograd);
  m.impl("discriminator_loss_backward", discriminator_backward_autograd);
  m.impl("generator_loss", generator_autograd);
  m.impl("generator_loss_backward", generator_backward_autograd);
}

TORCH_LIBRARY_IMPL(pygan, AutocastCPU, m) {
  m.impl("discriminator_loss", discriminator_autocast<at::kCPU, at::DispatchKey::AutocastCPU>);
  m.impl("generator_loss", generator_autocast<at::kCPU, at::DispatchKey::AutocastCPU>);
}

TORCH_LIBRARY_IMPL(pygan, AutocastCUDA, m) {
  m.impl("discriminator_loss", discriminator_autocast<at::kCUDA, at::DispatchKey::AutocastCUDA>);
  m.impl("generator_loss", generator_autocast<at::kCUDA, at::DispatchKey::AutocastCUDA>);
}

}  // namespace pygan
