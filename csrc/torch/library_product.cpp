#include "library_product.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>

#include <atomic>
#include <string_view>

#include "checks.h"
#include "device.h"
#include "double_backward.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

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

int64_t as_rows_count(const at::Tensor& x) { return x.size(-1) > 0 ? x.numel() / x.size(-1) : 0; }

#if defined(__x86_64__)
bool has_bf16_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1);
}
#endif

// The CPU's rows of the table (docs/performance.md). A vector times a weight, and one output, are products without reuse,
// for which these kernels pack in vain. On Sapphire Rapids the library also has the faster product of many rows, and its
// bf16 matrix units that these kernels do not use; on Zen 3, with AVX2, these are the faster ones.
LibraryProducts on_cpu(const Backend& backend, at::ScalarType type, int64_t rows, int64_t outputs, double flops) {
#if defined(__x86_64__)
  static const bool intel = __builtin_cpu_is("intel"), tiles = has_bf16_tiles();
  constexpr double kWorthACall = 2e4, kLarge = 2e7;
  const bool avx512 = std::string_view(backend.name) == "avx512", avx2 = std::string_view(backend.name) == "avx2";
  if (!(avx2 || avx512) || flops < kWorthACall) return {};
  if (type == at::kFloat && intel && avx512) {
    const bool thin = rows <= 4 || (outputs <= 4 && rows >= 32), large = rows >= 192 && flops >= kLarge;
    return {thin || large, thin || large};
  }
  if (type == at::kFloat) {
    const bool few = outputs <= 4 && flops >= (outputs == 1 ? kWorthACall : 2e5);
    return {rows == 1 || (few && rows >= 32), rows == 1 || (few && rows >= 256)};
  }
  if (type == at::kBFloat16 && intel && avx512 && tiles && flops >= kLarge) return {true, true};
#endif
  return {};
}

at::Tensor dropped(const at::Tensor& x, const Dropout& dropout) {
  return dropout.p > 0 ? call_dropout(x, dropout.p, int64_t(dropout.seed), int64_t(dropout.offset)) : x;
}

}  // namespace

Product product_choice() { return choice; }
void set_product_choice(Product wanted) { choice = wanted; }

bool uses_library(const Backend& backend, at::ScalarType type, double flops) {
  if (!backend.maxout_grad || choice == Product::fused) return false;
  return choice == Product::library || flops >= worth_the_library(type);
}

LibraryProducts library_products(const Backend& backend, const at::Tensor& x, const at::Tensor& weight, double dropout,
                                 bool maxout) {
  if (!backend.linear_act_grad || (maxout && !backend.maxout_grad) || choice == Product::fused) return {};
  if (choice == Product::library) return {true, true};
  const double flops = 2.0 * double(x.numel()) * double(weight.size(0));
  if (backend.maxout_grad) {
    const bool library = uses_library(backend, x.scalar_type(), flops);
    return {library, library};
  }
  if (dropout > 0) return {};  // here the library's operand would be a copy
  return on_cpu(backend, x.scalar_type(), as_rows_count(x), weight.size(0), flops);
}

void library_forward(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                     const Dropout& dropout, at::Tensor out) {
  const at::AutoDispatchBelowADInplaceOrView below;  // the op that calls records what there is to record
  const at::Tensor rows = as_rows(dropped(x, dropout));
  if (bias)
    at::addmm_out(out, *bias, rows, weight.t());
  else
    at::mm_out(out, rows, weight.t());
}

void library_backward(const at::Tensor& g, const at::Tensor& x, const at::Tensor& weight, const Dropout& dropout,
                      const std::array<bool, 3>& mask, const std::tuple<at::Tensor, at::Tensor, at::Tensor>& grads) {
  const at::AutoDispatchBelowADInplaceOrView below;
  auto [grad_x, grad_weight, grad_bias] = grads;
  if (mask[0]) {
    at::Tensor rows = as_rows(grad_x);
    at::mm_out(rows, g, weight);
    if (dropout.p > 0) grad_x.copy_(dropped(grad_x, dropout));
  }
  if (mask[1]) {
    const at::Tensor rows = as_rows(dropped(x, dropout));
    if (rows.size(0) == 1)
      at::mul_out(grad_weight, g.t(), rows);  // each element once: a product's set-up costs as much again
    else
      at::mm_out(grad_weight, g.t(), rows);
  }
  if (mask[2]) at::sum_out(grad_bias, g, {0});
}

}  // namespace pygan
