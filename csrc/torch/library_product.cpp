#include "library_product.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>

#include <atomic>

#include "checks.h"
#include "device.h"
#include "double_backward.h"

namespace pygan {
namespace {

std::atomic<Product> choice{Product::automatic};

// The work, in FLOP, from which the library's product is taken: on Hopper it has wgmma, which these kernels do not
// use. Predicted (docs/kernels.md), not yet measured.
double worth_the_library(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return 1e8;
    case at::kFloat:
      return tf32_allowed() ? 1e10 : 2e10;
    default:
      return 5e9;
  }
}

at::Tensor dropped(const at::Tensor& x, const Dropout& dropout) {
  return dropout.p > 0 ? call_dropout(x, dropout.p, int64_t(dropout.seed), int64_t(dropout.offset)) : x;
}

}  // namespace

Product product_choice() { return choice; }
void set_product_choice(Product wanted) { choice = wanted; }

bool uses_library(const Backend& backend, at::ScalarType type, double flops) {
  if (!backend.linear_act_grad || choice == Product::fused) return false;
  return choice == Product::library || flops >= worth_the_library(type);
}

bool uses_library(const Backend& backend, const at::Tensor& x, const at::Tensor& weight) {
  return uses_library(backend, x.scalar_type(), 2.0 * double(x.numel()) * double(weight.size(0)));
}

at::Tensor library_forward(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                           const Dropout& dropout) {
  const at::Tensor rows = as_rows(dropped(x, dropout));
  return bias ? at::addmm(*bias, rows, weight.t()) : at::mm(rows, weight.t());
}

void library_backward(const at::Tensor& g, const at::Tensor& x, const at::Tensor& weight, const Dropout& dropout,
                      const std::array<bool, 3>& mask, const std::tuple<at::Tensor, at::Tensor, at::Tensor>& grads) {
  auto [grad_x, grad_weight, grad_bias] = grads;
  if (mask[0]) {
    at::Tensor rows = as_rows(grad_x);
    at::mm_out(rows, g, weight);
    if (dropout.p > 0) grad_x.copy_(dropped(grad_x, dropout));
  }
  if (mask[1]) at::mm_out(grad_weight, g.t(), as_rows(dropped(x, dropout)));
  if (mask[2]) at::sum_out(grad_bias, g, {0});
}

}  // namespace pygan
