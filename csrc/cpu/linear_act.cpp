// act(dropout(x) W^T + b) and its backward: bias, activation and dropout happen inside the product.
#include "epilogues.h"
#include "kernels.h"
#include "operands.h"
#include "workspace.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

constexpr int64_t kElements = 8192;  // of a task that goes through rows

// f(row, rows) for parts of m rows of n elements.
template <class F>
void each_rows(const Workers& workers, int64_t m, int64_t n, const F& f) {
  const int64_t rows = std::max<int64_t>(1, kElements / std::max<int64_t>(n, 1));
  workers.each((m + rows - 1) / rows, 8.0 * double(m * n),
               [&](int64_t task, int) { f(task * rows, int(std::min(rows, m - task * rows))); });
}

// Rows of a matrix of n columns, one after the other.
template <class T>
void whole_rows(const Operand<T>& matrix, int64_t row, int rows, int64_t n, T* out) {
  for (int64_t j = 0; j < n; j += kElements) matrix.block(row, rows, j, int(std::min(kElements, n - j)), out + j, n);
}

// y = act(product), which may be y
template <class S>
void activate_product(const LinearActForward& op, const Workers& workers) {
  using T = Compute<S>;
  const int64_t m = op.x.rows, n = op.weight.rows;
  if (op.activation == Activation::identity && op.product == op.y) return;
  BiasActivation<S> epilogue(nullptr, op.activation, op.slope, op.y, m * n);  // as if it were one row
  const S* product = static_cast<const S*>(op.product);
  each_rows(workers, m * n, 1, [&](int64_t first, int count) {
    T buffer[kTileCols<T>] = {};
    for (int64_t j = first; j < first + count; j += kTileCols<T>) {
      const int cols = int(std::min<int64_t>(kTileCols<T>, first + count - j));
      load_row(product + j, cols, buffer);
      epilogue.tile(buffer, 0, 1, j, cols, 0);
    }
  });
}

template <class S>
void forward(const LinearActForward& op) {
  using T = Compute<S>;
  const int64_t m = op.x.rows, n = op.weight.rows, k = op.x.cols;
  const OpenMp workers(op.run.threads);
  if (op.product) return activate_product<S>(op, workers);
  PaddedBias<S> bias(op.bias, n);
  BiasActivation<S> epilogue(bias.values(), op.activation, op.slope, op.y, n);
  const Dense<S> weight = dense<S>(op.weight, true);
  const Operand<T>* b = &weight;
  with_input<S>(op.x, op.dropout, true,
                [&](const Operand<T>& x) { gemm({m, n, k, &x, &b, 1, &epilogue, nullptr, &workers}); });
}

// g = grad_y * act'(y) is made once where the weight's gradient is wanted, in the type that is computed with: that
// product goes across the rows of g, which are then read in place.
template <class S>
void backward(const LinearActBackward& op) {
  using T = Compute<S>;
  const int64_t m = op.x.rows, n = op.weight.rows;
  const OpenMp workers(op.run.threads);
  const LayerBackward layer = {op.x, op.weight, op.dropout, op.grad_x, op.grad_weight, op.grad_bias, &workers};
  if (op.activation == Activation::identity)
    return layer_backward<S>(layer, dense<S>(op.grad_y, true), dense<S>(op.grad_y, false));
  const ActivationGrad<S> gradient(op.grad_y, op.y, op.activation, op.slope, true);
  if (!op.grad_weight && !op.grad_bias) return layer_backward<S>(layer, gradient, gradient);
  Workspace space(Workspace::bytes_for<T>(size_t(m * n)));
  T* const g = space.template take<T>(size_t(m * n));
  each_rows(workers, m, n, [&](int64_t row, int rows) { whole_rows(gradient, row, rows, n, g + row * n); });
  const Matrix made = {g, m, n, n, 1};
  layer_backward<S>(layer, Dense<T>(made, true), Dense<T>(made, false));
}

}  // namespace

void linear_act_forward(const LinearActForward& op) {
  for_dtype(op.dtype, [&](auto* tag) { forward<std::remove_pointer_t<decltype(tag)>>(op); });
}

void linear_act_backward(const LinearActBackward& op) {
  for_dtype(op.dtype, [&](auto* tag) { backward<std::remove_pointer_t<decltype(tag)>>(op); });
}

// Half types pass through a buffer of the type that is computed with.
void linear_act_grad(const LinearActBackward& op, void* g) {
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    using T = Compute<S>;
    const int64_t m = op.x.rows, n = op.weight.rows;
    const OpenMp workers(op.run.threads);
    const ActivationGrad<S> gradient(op.grad_y, op.y, op.activation, op.slope, true);
    each_rows(workers, m, n, [&](int64_t row, int rows) {
      S* const out = static_cast<S*>(g) + row * n;
      if constexpr (std::is_same_v<S, T>) {
        whole_rows(gradient, row, rows, n, out);
      } else {
        constexpr int kCols = 256;
        T buffer[kCols];
        for (int i = 0; i < rows; ++i)
          for (int64_t j = 0; j < n; j += kCols) {
            const int cols = int(std::min<int64_t>(kCols, n - j));
            gradient.block(row + i, 1, j, cols, buffer, kCols);
            store_row(buffer, cols, out + i * n + j);
          }
      }
    });
  });
}

}  // namespace pygan::cpu::PYGAN_ISA
