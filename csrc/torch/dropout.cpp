// Dropout with an explicit counter: backward is the same op, so every order of derivative is.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "checks.h"
#include "device.h"
#include "double_backward.h"
#include "node.h"

namespace pygan {
namespace {

using at::Tensor;
using torch::autograd::variable_list;

Tensor forward(const Tensor& x, double p, int64_t seed, int64_t offset) {
  check_floating("dropout", "x", x);
  check_probability("dropout", "p", p);
  const Tensor dense = x.contiguous();
  Tensor out = at::empty(x.sizes(), x.options());
  Run run(x.device());
  run->dropout_forward({dtype_of(x),
                        dense.const_data_ptr(),
                        x.numel(),
                        {p, uint64_t(seed), uint64_t(offset)},
                        out.mutable_data_ptr(),
                        run.resources()});
  return out;
}

Tensor meta(const Tensor& x, double p, c10::SymInt, c10::SymInt) {
  check_floating("dropout", "x", x);
  check_probability("dropout", "p", p);
  return at::empty_symint(x.sym_sizes(), x.options());
}

struct DropoutGradient {
  static constexpr const char* kName = "PyganDropoutBackward";
  static constexpr int kSaved = 0, kSavedOutput = -1;
  struct Settings {
    double p;
    c10::SymInt seed, offset;
  };

  template <class Wants>
  static variable_list backward(const std::array<Tensor, 0>&, const Settings& settings, const Wants&,
                                variable_list& grads) {
    if (!grads[0].defined()) return {{}};
    return {call_dropout(grads[0], settings.p, settings.seed, settings.offset)};
  }
};

Tensor autograd(const Tensor& x, double p, c10::SymInt seed, c10::SymInt offset) {
  const Tensor out = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_dropout(x, p, seed, offset);
  }();
  const std::array inputs{&x};
  if (records("dropout", inputs))
    record<DropoutGradient>(inputs, std::array{out}, {}, {p, std::move(seed), std::move(offset)});
  return out;
}

void register_kernels(torch::Library& m) { m.impl("dropout", forward); }

}  // namespace

PYGAN_REGISTER_KERNELS(register_kernels)
TORCH_LIBRARY_IMPL(pygan, Meta, m) { m.impl("dropout", meta); }
TORCH_LIBRARY_IMPL(pygan, Autograd, m) { m.impl("dropout", autograd); }

}  // namespace pygan
