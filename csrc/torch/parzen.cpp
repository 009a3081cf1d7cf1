// The Parzen window's log-likelihood, for evaluation: no gradient.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cdist.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/logsumexp.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "../core/parzen.h"
#include "checks.h"
#include "device.h"
#include "find_op.h"

namespace pygan {
namespace {

using at::Tensor;

constexpr const char* kOp = "parzen_log_likelihood";
constexpr double kSmallest = 1e-100;  // of widths whose squares, and those of distances in such units, are numbers

Tensor empty_result(const Tensor& x, const Tensor& samples, double sigma) {
  check_floating(kOp, "x", x);
  check_same(kOp, "samples", samples, "x", x);
  TORCH_CHECK_VALUE(x.dim() == 2 && x.sym_size(1) >= 1, kOp, ": x must be (n, d), d at least 1, got shape ",
                    x.sym_sizes());
  TORCH_CHECK_VALUE(samples.dim() == 2 && samples.sym_size(1) == x.sym_size(1) && samples.sym_size(0) >= 1, kOp,
                    ": samples must be (s, ", x.sym_size(1), "), s at least 1, got shape ", samples.sym_sizes());
  TORCH_CHECK_VALUE(sigma >= kSmallest && sigma <= 1 / kSmallest, kOp, ": sigma must be a finite number above 0, from ",
                    kSmallest, " to ", 1 / kSmallest, ", got ", sigma);
  return at::empty_symint({x.sym_size(0)}, x.options().dtype(at::kDouble));
}

// What rounding may cost, in nat, where distances come from |x|^2 - 2 x.s + |s|^2 about the samples' mean: differences of
// large numbers if a sample far away moved the mean, or where there are clusters. NaN and infinity for such values.
double rounding(const Tensor& x, const Tensor& samples, double sigma, double epsilon) {
  const auto dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const Tensor centred = x.to(dtype).sub(samples.mean(0, false, dtype));
  const double farthest = at::linalg_vector_norm(centred, 2, at::IntArrayRef{1}).max().item<double>();
  return std::pow(farthest / sigma, 2) / 2 * epsilon;
}

// By differences, coordinate by coordinate: slow, and right wherever a double is.
Tensor by_differences(const Tensor& x, const Tensor& samples, double sigma) {
  const int64_t at_once = std::max<int64_t>(1, (int64_t(1) << 22) / samples.size(0));
  const Tensor out = at::empty({x.size(0)}, x.options());
  for (int64_t first = 0; first < x.size(0); first += at_once) {
    const int64_t count = std::min(at_once, x.size(0) - first);
    constexpr int64_t kWithoutProduct = 2;
    const Tensor distances = at::cdist(x.narrow(0, first, count), samples, 2, kWithoutProduct).div_(sigma);
    out.narrow(0, first, count).copy_(at::logsumexp(distances.square_().mul_(-0.5), at::IntArrayRef{1}));
  }
  return out.sub_(parzen_log_scale(samples.size(0), x.size(1), sigma));
}

Tensor parzen(const Tensor& x, const Tensor& samples, double sigma) {
  constexpr double kTolerance = 0.01;  // nat
  Tensor out = empty_result(x, samples, sigma);
  if (x.size(0) == 0) return out;
  if (x.scalar_type() != at::kDouble) {
    const bool exponents_fit = sigma > 1e-15 && sigma < 1e15;
    if (!exponents_fit || !(rounding(x, samples, sigma, std::numeric_limits<float>::epsilon()) < kTolerance))
      return parzen(x.to(at::kDouble), samples.to(at::kDouble), sigma);
  } else if (!(rounding(x, samples, sigma, std::numeric_limits<double>::epsilon()) < kTolerance)) {
    return by_differences(x, samples, sigma);
  }
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
