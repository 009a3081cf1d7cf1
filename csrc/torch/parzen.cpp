// The Parzen window's log-likelihood, for evaluation: no gradient.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>

#include "checks.h"
#include "device.h"
#include "find_op.h"

namespace pygan {
namespace {

using at::Tensor;

constexpr const char* kOp = "parzen_log_likelihood";

Tensor empty_result(const Tensor& x, const Tensor& samples, double sigma) {
  check_floating(kOp, "x", x);
  check_same(kOp, "samples", samples, "x", x);
  TORCH_CHECK_VALUE(x.dim() == 2 && x.sym_size(1) >= 1, kOp, ": x must be (n, d), d at least 1, got shape ",
                    x.sym_sizes());
  TORCH_CHECK_VALUE(samples.dim() == 2 && samples.sym_size(1) == x.sym_size(1) && samples.sym_size(0) >= 1, kOp,
                    ": samples must be (s, ", x.sym_size(1), "), s at least 1, got shape ", samples.sym_sizes());
  TORCH_CHECK_VALUE(sigma > 0 && std::isfinite(sigma), kOp, ": sigma must be a finite number above 0, got ", sigma);
  return at::empty_symint({x.sym_size(0)}, x.options().dtype(at::kDouble));
}

Tensor parzen(const Tensor& x, const Tensor& samples, double sigma) {
  Tensor out = empty_result(x, samples, sigma);
  Run run(x.device());
  run->parzen_log_likelihood(
      {dtype_of(x), matrix_of(x), matrix_of(samples), sigma, out.mutable_data_ptr<double>(), run.resources()});
  return out;
}

Tensor parzen_without_gradient(const Tensor& x, const Tensor& samples, double sigma) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, double)>("pygan::parzen_log_likelihood");
  const at::AutoDispatchBelowAutograd below;
  return op.call(x, samples, sigma);
}

void register_kernels(torch::Library& m) { m.impl(kOp, parzen); }

}  // namespace

PYGAN_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(pygan, Meta, m) { m.impl(kOp, empty_result); }
TORCH_LIBRARY_IMPL(pygan, Autograd, m) { m.impl(kOp, parzen_without_gradient); }

}  // namespace pygan
