// Maxout (Goodfellow et al. 2013): the best of `pieces` consecutive outputs, with the winner's index in one byte.
// Each piece is a weight set of its own in the product, so the maximum runs along lanes and never across them.
#include "epilogues.h"
#include "kernels.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

template <class S>
void forward(const MaxoutForward& op) {
  using T = Compute<S>;
  const int64_t m = op.x.rows, units = op.weight.rows / op.pieces, k = op.x.cols;
  const OpenMp workers(op.run.threads);
  PaddedBias<S> bias(op.bias, op.weight.rows);
  Workspace wide(std::is_same_v<S, T> ? 0 : Workspace::bytes_for<T>(m * units));
  T* best = std::is_same_v<S, T> ? static_cast<T*>(op.y) : wide.take<T>(m * units);
  MaxOverPieces<S> epilogue(bias.values(), best, op.y, op.argmax, units, int(op.pieces));

  std::vector<Dense<S>> pieces;
  std::vector<const Operand<T>*> b;
  pieces.reserve(size_t(op.pieces));
  for (int64_t p = 0; p < op.pieces; ++p) {
    const S* first = static_cast<const S*>(op.weight.data) + p * op.weight.row_stride;
    pieces.emplace_back(Matrix{first, units, k, op.pieces * op.weight.row_stride, op.weight.col_stride}, true);
    b.push_back(&pieces.back());
  }
  with_input<S>(op.x, op.dropout, true, [&](const Operand<T>& x) {
    gemm({m, units, k, &x, b.data(), int(op.pieces), &epilogue, nullptr, &workers});
  });
}

}  // namespace

void maxout_forward(const MaxoutForward& op) {
  for_dtype(op.dtype, [&](auto* tag) { forward<std::remove_pointer_t<decltype(tag)>>(op); });
}

void maxout_backward(const MaxoutBackward& op) {
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    const OpenMp workers(op.run.threads);
    const MaxoutGrad<S> by_row(op.grad_y, op.argmax, op.pieces, true);
    const MaxoutGrad<S> by_col(op.grad_y, op.argmax, op.pieces, false);
    layer_backward<S>({op.x, op.weight, op.dropout, op.grad_x, op.grad_weight, op.grad_bias, &workers}, by_row, by_col);
  });
}

}  // namespace pygan::cpu::PYGAN_ISA
