// A layer's forward and backward as products; what layer_<math>.cu instantiates.
#pragma once

#include "gemm.h"
#include "layer.h"

namespace pygan::cuda {

// dropout(x) of a product whose tiles of 32 rows or columns, `tiles` of them, each need all of x, and whose inner
// dimension is `inner` deep. A small tile makes the mask as it goes, about 0.2 us a slice; a launch that makes it for
// all costs about 2 us. Larger tiles find it made anyway.
template <class S>
Dropped<S> dropped_once(const Resources& run, const Matrix& x, const Dropout& dropout, int64_t tiles, int64_t inner) {
  constexpr int64_t kFewTiles = 4, kFewSlices = 8;
  const Dropped<S> operand(x, dropout);
  if (!operand.mask.on() || tiles <= kFewTiles || inner < kFewSlices * kDepth<S>) return operand;
  const Copied<S> made = make_copied<S>(run, operand);
  return Dropped<S>({made.data, made.rows, made.cols, made.row_stride, 1}, Dropout{});
}

// y = f(dropout(x) . weight^T + bias): both operands run along the inner dimension.
template <Math kMath, class Op>
void forward_product(const Op& op) {
  using S = Stored<kMath>;
  if (op.product) return finish_product<S>(op.run, op.product, op.x.rows, op.weight.rows, LayerOutput<S>::of(op));
  const int64_t m = op.x.rows, n = op.weight.rows, k = op.x.cols;
  const auto x = dropped_once<S>(op.run, op.x, op.dropout, ceil_div(n, SmallTile::kCols), k);
  gemm<kMath, Along::inner, Along::inner>(op.run, m, n, k, x, Dense<S>(op.weight), LayerOutput<S>::of(op));
}

// g (m, n) the gradient of the pre-activations: grad_x = mask(g . weight); grad_weight = g^T . dropout(x), and in
// the same pass grad_bias = the column sums of g.
template <Math kMath, class Op>
void backward_products(const Op& op) {
  using S = Stored<kMath>;
  const int64_t m = op.x.rows, n = op.weight.rows, k = op.x.cols;
  const auto g = PreActivationGrad<S>::of(op);
  if (op.grad_x)
    gemm<kMath, Along::inner, Along::outer>(op.run, m, k, n, g, Dense<S>(op.weight),
                                            Store<S>(op.grad_x, k, op.dropout));
  if (!op.grad_weight && !op.grad_bias) return;
  const Dropout dropout = op.grad_weight ? op.dropout : Dropout{};  // x is read for the weight alone
  const auto x = dropped_once<S>(op.run, op.x, dropout, ceil_div(n, SmallTile::kRows), m);
  gemm<kMath, Along::outer, Along::outer>(op.run, n, op.grad_weight ? k : 0, m, g, x, Store<S>(op.grad_weight, k),
                                          static_cast<S*>(op.grad_bias));
}

template <Math kMath, class Op>
void grad_alone(const Op& op, void* g) {
  using S = Stored<kMath>;
  make(op.run, PreActivationGrad<S>::of(op), op.weight.rows, static_cast<S*>(g));
}

// Explicit instantiations of one kind of arithmetic.
#define PYGAN_INSTANTIATE_LAYER(math)                           \
  template <>                                                   \
  void layer_forward<math>(const LinearActForward& op) {        \
    forward_product<math>(op);                                  \
  }                                                             \
  template <>                                                   \
  void layer_forward<math>(const MaxoutForward& op) {           \
    forward_product<math>(op);                                  \
  }                                                             \
  template <>                                                   \
  void layer_backward<math>(const LinearActBackward& op) {      \
    backward_products<math>(op);                                \
  }                                                             \
  template <>                                                   \
  void layer_grad<math>(const LinearActBackward& op, void* g) { \
    grad_alone<math>(op, g);                                    \
  }                                                             \
  template <>                                                   \
  void layer_grad<math>(const MaxoutBackward& op, void* g) {    \
    grad_alone<math>(op, g);                                    \
  }                                                             \
  template <>                                                   \
  void layer_backward<math>(const MaxoutBackward& op) {         \
    backward_products<math>(op);                                \
  }

}  // namespace pygan::cuda
