// A layer's forward and backward as products; what layer_<math>.cu instantiates.
#pragma once

#include "gemm.h"
#include "layer.h"

namespace pygan::cuda {

// y = f(dropout(x) . weight^T + bias): both operands run along the inner dimension.
template <Math kMath, class Op>
void forward_product(const Op& op) {
  using S = Stored<kMath>;
  if (op.product) return finish_product<S>(op.run, op.product, op.x.rows, op.weight.rows, LayerOutput<S>::of(op));
  gemm<kMath, Along::inner, Along::inner>(op.run, op.x.rows, op.weight.rows, op.x.cols, Dropped<S>(op.x, op.dropout),
                                          Dense<S>(op.weight), LayerOutput<S>::of(op));
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
  if (op.grad_weight || op.grad_bias)
    gemm<kMath, Along::outer, Along::outer>(op.run, n, op.grad_weight ? k : 0, m, g, Dropped<S>(op.x, op.dropout),
                                            Store<S>(op.grad_weight, k), static_cast<S*>(op.grad_bias));
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
