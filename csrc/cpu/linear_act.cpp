// act(dropout(x) W^T + b) and its backward: bias, activation and dropout happen inside the product.
#include "epilogues.h"
#include "kernels.h"
#include "operands.h"
#include "workspace.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

template <class S>
void forward(const LinearActForward& op) {
  using T = Compute<S>;
  const int64_t m = op.x.rows, n = op.weight.rows, k = op.x.cols;
  const OpenMp workers(op.run.threads);
  PaddedBias<S> bias(op.bias, n);
  BiasActivation<S> epilogue(bias.values(), op.activation, op.slope, op.y, n);
  const Dense<S> weight = dense<S>(op.weight, true);
  const Operand<T>* b = &weight;
  with_input<S>(op.x, op.dropout, true,
                [&](const Operand<T>& x) { gemm({m, n, k, &x, &b, 1, &epilogue, nullptr, &workers}); });
}

}  // namespace

void linear_act_forward(const LinearActForward& op) {
  for_dtype(op.dtype, [&](auto* tag) { forward<std::remove_pointer_t<decltype(tag)>>(op); });
}

void linear_act_backward(const LinearActBackward& op) {
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    const OpenMp workers(op.run.threads);
    const ActivationGrad<S> by_row(op.grad_y, op.y, op.activation, op.slope, true);
    const ActivationGrad<S> by_col(op.grad_y, op.y, op.activation, op.slope, false);
    layer_backward<S>({op.x, op.weight, op.dropout, op.grad_x, op.grad_weight, op.grad_bias, &workers}, by_row, by_col);
  });
}

}  // namespace pygan::cpu::PYGAN_ISA
