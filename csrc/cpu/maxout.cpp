// Maxout (Goodfellow et al. 2013): the best of `pieces` consecutive outputs, with the winner's index in one byte.
// Each piece is a weight set of its own in the product, so the maximum runs along lanes and never across them.
#include "epilogues.h"
#include "kernels.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

template <class S>
class MaxOverPieces : public Epilogue<Compute<S>> {
  using T = Compute<S>;

 public:
  // best is (m, units): y itself where T is S.
  MaxOverPieces(const MaxoutForward& op, int64_t units, const T* bias, T* best)
      : bias_(bias), best_(best), op_(op), units_(units), pieces_(int(op.pieces)) {}

  void tile(T* c, int64_t i, int rows, int64_t j, int cols, int piece) override {
    for (int r = 0; r < rows; ++r) {
      const T* row = c + r * kTileCols<T>;
      T* best = best_ + (i + r) * units_ + j;
      uint8_t* winner = op_.argmax + (i + r) * units_ + j;
#pragma omp simd
      for (int l = 0; l < cols; ++l) {
        const T value = bias_ ? row[l] + bias_[(j + l) * pieces_ + piece] : row[l];
        // NaN wins and stays, the first of equals wins: as torch.max
        const bool better = piece == 0 || value > best[l] || (value != value && best[l] == best[l]);
        best[l] = better ? value : best[l];
        winner[l] = better ? uint8_t(piece) : winner[l];
      }
      if constexpr (!std::is_same_v<S, T>)
        if (piece == pieces_ - 1) store_row(best, cols, static_cast<S*>(op_.y) + (i + r) * units_ + j);
    }
  }

 private:
  const T* bias_;
  T* best_;
  const MaxoutForward& op_;
  int64_t units_;
  int pieces_;
};

template <class S>
void forward(const MaxoutForward& op) {
  using T = Compute<S>;
  const int64_t m = op.x.rows, units = op.weight.rows / op.pieces, k = op.x.cols;
  const OpenMp workers(op.run.threads);
  PaddedBias<S> bias(op.bias, op.weight.rows);
  Workspace wide(std::is_same_v<S, T> ? 0 : Workspace::bytes_for<T>(m * units));
  T* best = std::is_same_v<S, T> ? static_cast<T*>(op.y) : wide.take<T>(m * units);
  MaxOverPieces<S> epilogue(op, units, bias.values(), best);

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
    layer_backward<S>({op.x, op.weight, op.dropout, op.grad_x, op.grad_weight, op.grad_bias, &workers}, by_row,
                      by_col);
  });
}

}  // namespace pygan::cpu::PYGAN_ISA
