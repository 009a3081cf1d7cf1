// Maxout as a torch op: `maxout` is what users call; `maxout_forward` also returns the winners that backward needs.
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
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
using Pair = std::tuple<Tensor, Tensor>;
using Grads = std::tuple<Tensor, Tensor, Tensor>;

Pair empty_outputs(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, int64_t pieces,
                   double dropout) {
  check_layer("maxout", x, weight, bias);
  check_pieces("maxout", pieces, weight);
  check_probability("maxout", "dropout", dropout);
  const auto shape = with_last(x, weight.sym_size(0) / pieces);
  return {at::empty_symint(shape, x.options()), at::empty_symint(shape, x.options().dtype(at::kByte))};
}

Pair forward(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, int64_t pieces, double dropout,
             int64_t seed, int64_t offset) {
  auto outputs = empty_outputs(x, weight, bias, pieces, dropout);
  auto& [y, argmax] = outputs;
  const Tensor rows = as_rows(x);
  const Tensor dense_bias = bias ? bias->contiguous() : Tensor();
  Run run(x.device());
  const Dropout dropping{dropout, uint64_t(seed), uint64_t(offset)};
  Tensor product;
  if (library_products(*run, x, weight, dropout, true).forward) {
    product = at::empty({rows.size(0), weight.size(0)}, x.options());
    library_forward(x, weight, bias, dropping, product);
  }
  run->maxout_forward({dtype_of(x), matrix_of(rows), matrix_of(weight),
                       bias && !product.defined() ? dense_bias.const_data_ptr() : nullptr, pieces, dropping,
                       y.mutable_data_ptr(), argmax.mutable_data_ptr<uint8_t>(), run.resources(),
                       product.defined() ? product.const_data_ptr() : nullptr});
  return outputs;
}

Pair meta(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, int64_t pieces, double dropout,
          c10::SymInt, c10::SymInt) {
  return empty_outputs(x, weight, bias, pieces, dropout);
}

Grads empty_grads(const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& argmax, int64_t pieces,
                  const Mask& mask) {
  check_layer("maxout_backward", x, weight, std::nullopt);
  check_pieces("maxout_backward", pieces, weight);
  const auto shape = with_last(x, weight.sym_size(0) / pieces);
  check_shape("maxout_backward", "grad_y", grad_y, shape);
  check_shape("maxout_backward", "argmax", argmax, shape);
  check_same("maxout_backward", "grad_y", grad_y, "x", x);
  TORCH_CHECK_TYPE(argmax.scalar_type() == at::kByte, "maxout_backward: argmax must be uint8, got ",
                   argmax.scalar_type());
  return empty_layer_grads(x, weight, mask);
}

Grads backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& argmax, int64_t pieces,
               double dropout, int64_t seed, int64_t offset, Mask mask) {
  auto grads = empty_grads(grad_y, x, weight, argmax, pieces, mask);
  auto& [grad_x, grad_weight, grad_bias] = grads;
  const Tensor grad_rows = as_rows(grad_y), rows = as_rows(x), winners = argmax.contiguous();
  Run run(x.device());
  const Dropout dropping{dropout, uint64_t(seed), uint64_t(offset)};
  const MaxoutBackward op{dtype_of(x),
                          matrix_of(grad_rows),
                          matrix_of(rows),
                          matrix_of(weight),
                          winners.const_data_ptr<uint8_t>(),
                          pieces,
                          dropping,
                          mask[0] ? grad_x.mutable_data_ptr() : nullptr,
                          mask[1] ? grad_weight.mutable_data_ptr() : nullptr,
                          mask[2] ? grad_bias.mutable_data_ptr() : nullptr,
                          run.resources()};
  if (library_products(*run, x, weight, dropout, true).backward) {
    const Tensor g = at::empty({rows.size(0), weight.size(0)}, x.options());
    run->maxout_grad(op, g.mutable_data_ptr());
    library_backward(g, x, weight, dropping, mask, grads);
  } else {
    run->maxout_backward(op);
  }
  return grads;
}

Grads backward_meta(const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& argmax, int64_t pieces,
                    double, c10::SymInt, c10::SymInt, Mask mask) {
  return empty_grads(grad_y, x, weight, argmax, pieces, mask);
}

Pair call_forward(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, int64_t pieces, double dropout,
                  c10::SymInt seed, c10::SymInt offset) {
  static const auto op =
      find_op<Pair(const Tensor&, const Tensor&, const optional<Tensor>&, int64_t, double, c10::SymInt, c10::SymInt)>(
          "pygan::maxout_forward");
  return op.call(x, weight, bias, pieces, dropout, std::move(seed), std::move(offset));
}

Grads call_backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& argmax, int64_t pieces,
                    double dropout, c10::SymInt seed, c10::SymInt offset, Mask mask) {
  static const auto op = find_op<Grads(const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t, double,
                                       c10::SymInt, c10::SymInt, Mask)>("pygan::maxout_backward");
  return op.call(grad_y, x, weight, argmax, pieces, dropout, std::move(seed), std::move(offset), mask);
}

// The winner's entry of each unit, of g (..., units * pieces); differentiable.
Tensor pick(const Tensor& g, const Tensor& argmax, int64_t pieces) {
  const Tensor by_piece = g.unflatten_symint(-1, c10::SymIntArrayRef({argmax.sym_size(-1), pieces}));
  return by_piece.gather(-1, argmax.to(at::kLong).unsqueeze(-1)).squeeze(-1);
}

// With g = grad_y in the winners' places: see linear_act.cpp.
struct MaxoutDoubleBackward {
  static constexpr const char* kName = "PyganMaxoutBackwardBackward";
  static constexpr int kSaved = 4, kSavedOutput = -1;
  using Settings = LayerSettings;

  template <class Wants>
  static variable_list backward(const std::array<Tensor, 4>& saved, const Settings& settings, const Wants& wants,
                                variable_list& cotangents) {
    const auto& [grad_y, x, weight, argmax] = saved;
    const Tensor &v_x = cotangents[0], &v_weight = cotangents[1];
    const auto again = [&](const Tensor& x, const Tensor& weight, Mask mask) {
      return call_backward(grad_y, x, weight, argmax, settings.kind, settings.dropout, settings.seed, settings.offset,
                           mask);
    };
    Tensor grad_grad_y, grad_x, grad_weight;
    if (wants(2) && v_x.defined()) grad_weight = std::get<1>(again(v_x, weight, {false, true, false}));
    if (wants(1) && v_weight.defined()) grad_x = std::get<0>(again(x, v_weight, {true, false, false}));
    if (wants(0)) {
      const Tensor grad_g = cotangent_of_g(settings, cotangents, x, weight);
      if (grad_g.defined()) grad_grad_y = pick(grad_g, argmax, settings.kind);
    }
    return {grad_grad_y, grad_x, grad_weight};
  }
};

struct MaxoutGradient {
  static constexpr const char* kName = "PyganMaxoutBackward";
  static constexpr int kSaved = 3, kSavedOutput = -1;
  using Settings = LayerSettings;

  template <class Wants>
  static variable_list backward(const std::array<Tensor, 3>& saved, const Settings& settings, const Wants& wants,
                                variable_list& grads) {
    if (!grads[0].defined()) return {{}, {}, {}};
    const auto& [x, weight, argmax] = saved;
    const Mask mask = {wants(0), wants(1), wants(2)};
    const auto wanted = defined_where(call_backward(grads[0], x, weight, argmax, settings.kind, settings.dropout,
                                                    settings.seed, settings.offset, mask),
                                      mask);
    return {wanted.begin(), wanted.end()};
  }
};

Pair forward_autograd(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, int64_t pieces,
                      double dropout, c10::SymInt seed, c10::SymInt offset) {
  const Pair outputs = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_forward(x, weight, bias, pieces, dropout, seed, offset);
  }();
  const auto& [y, argmax] = outputs;
  const std::array inputs{&x, &weight, bias ? &*bias : nullptr};
  if (records("maxout", inputs))
    record<MaxoutGradient>(inputs, std::array{y}, {x, weight, argmax},
                           {pieces, 0, dropout, std::move(seed), std::move(offset)});
  return outputs;
}

Grads backward_autograd(const Tensor& grad_y, const Tensor& x, const Tensor& weight, const Tensor& argmax,
                        int64_t pieces, double dropout, c10::SymInt seed, c10::SymInt offset, Mask mask) {
  const Grads grads = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_backward(grad_y, x, weight, argmax, pieces, dropout, seed, offset, mask);
  }();
  const std::array inputs{&grad_y, &x, &weight};
  if (records("maxout_backward", inputs))
    record<MaxoutDoubleBackward>(inputs, defined_where(grads, mask), {grad_y, x, weight, argmax},
                                 {pieces, 0, dropout, std::move(seed), std::move(offset)});
  return grads;
}

Tensor maxout(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, int64_t pieces, double dropout,
              c10::SymInt seed, c10::SymInt offset) {
  return std::get<0>(call_forward(x, weight, bias, pieces, dropout, std::move(seed), std::move(offset)));
}

template <at::DeviceType device, at::DispatchKey key>
Pair forward_autocast(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, int64_t pieces,
                      double dropout, c10::SymInt seed, c10::SymInt offset) {
  c10::impl::ExcludeDispatchKeyGuard off(key);
  return call_forward(lower<device>(x), lower<device>(weight), lower<device>(bias), pieces, dropout, std::move(seed),
                      std::move(offset));
}

void register_kernels(torch::Library& m) {
  m.impl("maxout_forward", forward);
  m.impl("maxout_backward", backward);
}

}  // namespace

TORCH_LIBRARY_IMPL(pygan, CompositeImplicitAutograd, m) { m.impl("maxout", maxout); }
// torch.func.vmap: the parts are batched
TORCH_LIBRARY_IMPL(pygan, FuncTorchBatchedDecomposition, m) { m.impl("maxout", maxout); }

PYGAN_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(pygan, Meta, m) {
  m.impl("maxout_forward", meta);
  m.impl("maxout_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(pygan, Autograd, m) {
  m.impl("maxout_forward", forward_autograd);
  m.impl("maxout_backward", backward_autograd);
}

TORCH_LIBRARY_IMPL(pygan, AutocastCPU, m) {
  m.impl("maxout_forward", forward_autocast<at::kCPU, at::DispatchKey::AutocastCPU>);
}

TORCH_LIBRARY_IMPL(pygan, AutocastCUDA, m) {
  m.impl("maxout_forward", forward_autocast<at::kCUDA, at::DispatchKey::AutocastCUDA>);
}

}  // namespace pygan
