// The minimax game's losses on logits, differentiable twice. Reductions are summed in float64.
#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sigmoid.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "../cpu/backend.h"
#include "checks.h"

namespace pygan {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Pair = std::tuple<Tensor, Tensor>;

constexpr const char* kDiscriminator = "discriminator_loss";
constexpr const char* kGenerator = "generator_loss";

void check_discriminator(const Tensor& real, const Tensor& fake, double smoothing, Reduction reduction) {
  check_floating(kDiscriminator, "real_logits", real);
  check_same(kDiscriminator, "fake_logits", fake, "real_logits", real);
  TORCH_CHECK_VALUE(smoothing >= 0 && smoothing < 1, kDiscriminator, ": label_smoothing must be in [0, 1), got ",
                    smoothing);
  if (reduction == Reduction::none)
    TORCH_CHECK_VALUE(real.sym_sizes() == fake.sym_sizes(), kDiscriminator,
                      ": reduction 'none' needs real_logits and fake_logits of one shape, got ", real.sym_sizes(),
                      " and ", fake.sym_sizes());
}

Tensor empty_loss(const Tensor& logits, Reduction reduction) {
  return reduction == Reduction::none ? at::empty_symint(logits.sym_sizes(), logits.options())
                                      : at::empty({}, logits.options());
}

void check_upstream(const char* op, const Tensor& grad, const Tensor& logits, Reduction reduction) {
  check_same(op, "grad", grad, "the logits", logits);
  check_shape(op, "grad", grad, reduction == Reduction::none ? logits.sym_sizes() : c10::SymIntArrayRef());
}

// One term's sum (for sum and mean), or its values into `out`.
double term_forward(const Backend& backend, GanTerm term, const Tensor& logits, double smoothing, Reduction reduction,
                    bool accumulate, Tensor& out) {
  const Tensor dense = logits.contiguous();
  double total = 0;
  backend.gan_loss_forward({dtype_of(logits), term, dense.const_data_ptr(), dense.numel(), smoothing, reduction,
                            accumulate, out.mutable_data_ptr(), &total, threads()});
  return reduction == Reduction::mean ? total / double(dense.numel()) : total;
}

Tensor term_backward(const Backend& backend, GanTerm term, const Tensor& grad, const Tensor& logits, double smoothing,
                     Reduction reduction) {
  const Tensor dense = logits.contiguous(), upstream = grad.contiguous();
  Tensor result = at::empty(logits.sizes(), logits.options());
  backend.gan_loss_backward({dtype_of(logits), term, dense.const_data_ptr(), dense.numel(), smoothing, reduction,
                             upstream.const_data_ptr(), result.mutable_data_ptr(), threads()});
  return result;
}

template <const Backend& (*backend)()>
Tensor discriminator_forward(const Tensor& real, const Tensor& fake, double smoothing, c10::string_view name) {
  const Reduction reduction = parse_reduction(kDiscriminator, name);
  check_discriminator(real, fake, smoothing, reduction);
  Tensor out = empty_loss(real, reduction);
  double total = term_forward(backend(), GanTerm::real, real, smoothing, reduction, false, out);
  total += term_forward(backend(), GanTerm::fake, fake, 0, reduction, true, out);
  if (reduction != Reduction::none) out.fill_(total);
  return out;
}

template <const Backend& (*backend)()>
Pair discriminator_backward(const Tensor& grad, const Tensor& real, const Tensor& fake, double smoothing,
                            c10::string_view name) {
  const Reduction reduction = parse_reduction("discriminator_loss_backward", name);
  check_discriminator(real, fake, smoothing, reduction);
  check_upstream("discriminator_loss_backward", grad, real, reduction);
  return {term_backward(backend(), GanTerm::real, grad, real, smoothing, reduction),
          term_backward(backend(), GanTerm::fake, grad, fake, 0, reduction)};
}

template <const Backend& (*backend)()>
Tensor generator_forward(const Tensor& fake, c10::string_view kind, c10::string_view name) {
  const GanTerm term = parse_generator_kind(kind);
  const Reduction reduction = parse_reduction(kGenerator, name);
  check_floating(kGenerator, "fake_logits", fake);
  Tensor out = empty_loss(fake, reduction);
  const double total = term_forward(backend(), term, fake, 0, reduction, false, out);
  if (reduction != Reduction::none) out.fill_(total);
  return out;
}

template <const Backend& (*backend)()>
Tensor generator_backward(const Tensor& grad, const Tensor& fake, c10::string_view kind, c10::string_view name) {
  const GanTerm term = parse_generator_kind(kind);
  const Reduction reduction = parse_reduction("generator_loss_backward", name);
  check_floating("generator_loss_backward", "fake_logits", fake);
  check_upstream("generator_loss_backward", grad, fake, reduction);
  return term_backward(backend(), term, grad, fake, 0, reduction);
}

Tensor discriminator_meta(const Tensor& real, const Tensor& fake, double smoothing, c10::string_view name) {
  const Reduction reduction = parse_reduction(kDiscriminator, name);
  check_discriminator(real, fake, smoothing, reduction);
  return empty_loss(real, reduction);
}

Pair discriminator_backward_meta(const Tensor& grad, const Tensor& real, const Tensor& fake, double smoothing,
                                 c10::string_view name) {
  const Reduction reduction = parse_reduction("discriminator_loss_backward", name);
  check_discriminator(real, fake, smoothing, reduction);
  check_upstream("discriminator_loss_backward", grad, real, reduction);
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
  check_upstream("generator_loss_backward", grad, fake, parse_reduction("generator_loss_backward", name));
  return at::empty_symint(fake.sym_sizes(), fake.options());
}

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

Tensor call_discriminator(const Tensor& real, const Tensor& fake, double smoothing, c10::string_view reduction) {
  static const auto op =
      find<Tensor(const Tensor&, const Tensor&, double, c10::string_view)>("pygan::discriminator_loss");
  return op.call(real, fake, smoothing, reduction);
}

Pair call_discriminator_backward(const Tensor& grad, const Tensor& real, const Tensor& fake, double smoothing,
                                 c10::string_view reduction) {
  static const auto op = find<Pair(const Tensor&, const Tensor&, const Tensor&, double, c10::string_view)>(
      "pygan::discriminator_loss_backward");
  return op.call(grad, real, fake, smoothing, reduction);
}

Tensor call_generator(const Tensor& fake, c10::string_view kind, c10::string_view reduction) {
  static const auto op = find<Tensor(const Tensor&, c10::string_view, c10::string_view)>("pygan::generator_loss");
  return op.call(fake, kind, reduction);
}

Tensor call_generator_backward(const Tensor& grad, const Tensor& fake, c10::string_view kind,
                               c10::string_view reduction) {
  static const auto op =
      find<Tensor(const Tensor&, const Tensor&, c10::string_view, c10::string_view)>("pygan::generator_loss_backward");
  return op.call(grad, fake, kind, reduction);
}

// Second derivatives, in torch ops, half types in fp32. result = scale * grad * d(a); v is its cotangent.
struct SecondOrder {
  Tensor of_grad, of_logits;
};

SecondOrder second_order(GanTerm term, const Tensor& v, const Tensor& grad, const Tensor& logits, double smoothing,
                         Reduction reduction) {
  if (!v.defined()) return {};
  const auto type = at::toOpMathType(logits.scalar_type());
  const bool rising = term == GanTerm::fake || term == GanTerm::minimax;
  const Tensor a = rising ? logits.to(type) : -logits.to(type);
  const Tensor s = at::sigmoid(a);
  Tensor d = term == GanTerm::fake ? s : -s;
  if (term == GanTerm::real && smoothing != 0) d = d + smoothing;
  const Tensor curvature = term == GanTerm::minimax ? -s * at::sigmoid(-a) : s * at::sigmoid(-a);
  Tensor weighted = v.to(type);
  if (reduction == Reduction::mean) weighted = weighted / logits.sym_numel().guard_int(__FILE__, __LINE__);
  Tensor of_grad = weighted * d;
  if (reduction != Reduction::none) of_grad = of_grad.sum();
  return {of_grad.to(grad.scalar_type()), (weighted * grad.to(type) * curvature).to(logits.scalar_type())};
}

class DiscriminatorLossBackward : public torch::autograd::Function<DiscriminatorLossBackward> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& grad, const Tensor& real, const Tensor& fake,
                               double smoothing, const std::string& reduction) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({grad, real, fake});
    ctx->saved_data["smoothing"] = smoothing;
    ctx->saved_data["reduction"] = reduction;
    ctx->set_materialize_grads(false);
    auto [grad_real, grad_fake] = call_discriminator_backward(grad, real, fake, smoothing, reduction);
    return {grad_real, grad_fake};
  }

  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const auto saved = ctx->get_saved_variables();
    const double smoothing = ctx->saved_data["smoothing"].toDouble();
    const Reduction reduction = parse_reduction(kDiscriminator, ctx->saved_data["reduction"].toStringRef());
    const auto real = second_order(GanTerm::real, v[0], saved[0], saved[1], smoothing, reduction);
    const auto fake = second_order(GanTerm::fake, v[1], saved[0], saved[2], 0, reduction);
    Tensor of_grad = real.of_grad;
    if (fake.of_grad.defined()) of_grad = of_grad.defined() ? of_grad + fake.of_grad : fake.of_grad;
    return {of_grad, real.of_logits, fake.of_logits, {}, {}};
  }
};

class DiscriminatorLoss : public torch::autograd::Function<DiscriminatorLoss> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& real, const Tensor& fake, double smoothing,
                        const std::string& reduction) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({real, fake});
    ctx->saved_data["smoothing"] = smoothing;
    ctx->saved_data["reduction"] = reduction;
    return call_discriminator(real, fake, smoothing, reduction);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_real, grad_fake] =
        call_discriminator_backward(grads[0], saved[0], saved[1], ctx->saved_data["smoothing"].toDouble(),
                                    ctx->saved_data["reduction"].toStringRef());
    return {grad_real, grad_fake, {}, {}};
  }
};

class GeneratorLossBackward : public torch::autograd::Function<GeneratorLossBackward> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& grad, const Tensor& fake, const std::string& kind,
                        const std::string& reduction) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({grad, fake});
    ctx->saved_data["kind"] = kind;
    ctx->saved_data["reduction"] = reduction;
    return call_generator_backward(grad, fake, kind, reduction);
  }

  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const auto saved = ctx->get_saved_variables();
    const auto second =
        second_order(parse_generator_kind(ctx->saved_data["kind"].toStringRef()), v[0], saved[0], saved[1], 0,
                     parse_reduction(kGenerator, ctx->saved_data["reduction"].toStringRef()));
    return {second.of_grad, second.of_logits, {}, {}};
  }
};

class GeneratorLoss : public torch::autograd::Function<GeneratorLoss> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& fake, const std::string& kind,
                        const std::string& reduction) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({fake});
    ctx->saved_data["kind"] = kind;
    ctx->saved_data["reduction"] = reduction;
    return call_generator(fake, kind, reduction);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {call_generator_backward(grads[0], saved[0], ctx->saved_data["kind"].toStringRef(),
                                    ctx->saved_data["reduction"].toStringRef()),
            {},
            {}};
  }
};

Tensor discriminator_autograd(const Tensor& real, const Tensor& fake, double smoothing, c10::string_view reduction) {
  return DiscriminatorLoss::apply(real, fake, smoothing, std::string(reduction));
}

Pair discriminator_backward_autograd(const Tensor& grad, const Tensor& real, const Tensor& fake, double smoothing,
                                     c10::string_view reduction) {
  auto grads = DiscriminatorLossBackward::apply(grad, real, fake, smoothing, std::string(reduction));
  return {grads[0], grads[1]};
}

Tensor generator_autograd(const Tensor& fake, c10::string_view kind, c10::string_view reduction) {
  return GeneratorLoss::apply(fake, std::string(kind), std::string(reduction));
}

Tensor generator_backward_autograd(const Tensor& grad, const Tensor& fake, c10::string_view kind,
                                   c10::string_view reduction) {
  return GeneratorLossBackward::apply(grad, fake, std::string(kind), std::string(reduction));
}

}  // namespace

TORCH_LIBRARY_IMPL(pygan, CPU, m) {
  m.impl("discriminator_loss", discriminator_forward<cpu::backend>);
  m.impl("discriminator_loss_backward", discriminator_backward<cpu::backend>);
  m.impl("generator_loss", generator_forward<cpu::backend>);
  m.impl("generator_loss_backward", generator_backward<cpu::backend>);
}

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

}  // namespace pygan
