// The operands of gemm.h: what a layer multiplies, made on the fly.
#pragma once

#include "gemm.h"
#include "random_rows.h"

namespace pygan::cpu::PYGAN_ISA {

// A strided matrix of storage type S.
template <class S>
class Dense : public Operand<Compute<S>> {
  using T = Compute<S>;

 public:
  Dense(const Matrix& matrix, bool inner_is_col) : Operand<T>(inner_is_col), m_(matrix) {}

  void block(int64_t row, int rows, int64_t col, int cols, T* out, int64_t ld) const override {
    for (int r = 0; r < rows; ++r) {
      const S* in = static_cast<const S*>(m_.data) + (row + r) * m_.row_stride + col * m_.col_stride;
      if (m_.col_stride == 1)
        load_row(in, cols, out + r * ld);
      else
        for (int c = 0; c < cols; ++c) out[r * ld + c] = widen(in[c * m_.col_stride]);
    }
  }

  const T* in_place(int64_t row, int, int64_t col, int64_t* ld) const override {
    if constexpr (std::is_same_v<S, T>) {
      if (m_.col_stride == 1) {
        *ld = m_.row_stride;
        return static_cast<const T*>(m_.data) + row * m_.row_stride + col;
      }
    }
    return nullptr;
  }

 private:
  Matrix m_;
};

// A transposed view is cheaper to read along its own rows.
inline bool is_transposed(const Matrix& m) { return m.row_stride == 1 && m.col_stride != 1; }
inline Matrix transposed(const Matrix& m) { return {m.data, m.cols, m.rows, m.col_stride, m.row_stride}; }

template <class S>
Dense<S> dense(const Matrix& matrix, bool inner_is_col) {
  return is_transposed(matrix) ? Dense<S>(transposed(matrix), !inner_is_col) : Dense<S>(matrix, inner_is_col);
}

// The dropout masks of rows in two halves, [0, split) and the rest, each with an offset and a count of its own. A mask
// is a function of the element's index in its half, and is recomputed, never stored.
template <class T>
class RowMasks {
 public:
  RowMasks(double p, uint64_t seed, uint64_t top, uint64_t bottom, int64_t split, int64_t cols)
      : top_({p, seed, top}), bottom_({p, seed, bottom}), split_(split), cols_(cols), on_(p > 0) {}
  RowMasks(const Dropout& dropout, int64_t rows, int64_t cols)
      : RowMasks(dropout.p, dropout.seed, dropout.offset, dropout.offset, rows, cols) {}

  bool on() const { return on_; }

  // values[i] *= mask of (row, col + i)
  void apply(T* values, int64_t n, int64_t row, int64_t col) const {
    if (row < split_)
      top_.apply(values, n, row * cols_ + col);
    else
      bottom_.apply(values, n, (row - split_) * cols_ + col);
  }

 private:
  DropoutMask<T> top_, bottom_;
  int64_t split_, cols_;
  bool on_;
};

// dropout(x)
template <class T>
class Dropped : public Operand<T> {
 public:
  Dropped(const Operand<T>& x, const RowMasks<T>& masks) : Operand<T>(x.inner_is_col), x_(x), masks_(masks) {}

  void block(int64_t row, int rows, int64_t col, int cols, T* out, int64_t ld) const override {
    x_.block(row, rows, col, cols, out, ld);
    for (int r = 0; r < rows; ++r) masks_.apply(out + r * ld, cols, row + r, col);
  }

 private:
  const Operand<T>& x_;
  const RowMasks<T> masks_;
};

// g = grad_y * act'(y)
template <class S>
class ActivationGrad : public Operand<Compute<S>> {
  using T = Compute<S>;

 public:
  ActivationGrad(const Matrix& grad_y, const void* y, Activation activation, double slope, bool inner_is_col)
      : Operand<T>(inner_is_col),
        grad_y_(grad_y, inner_is_col),
        y_(static_cast<const S*>(y)),
        cols_(grad_y.cols),
        activation_(activation),
        slope_(T(slope)) {}

  void block(int64_t row, int rows, int64_t col, int cols, T* out, int64_t ld) const override {
    grad_y_.block(row, rows, col, cols, out, ld);
    if (activation_ != Activation::identity)
      for_activation(activation_, Multiply{y_ + row * cols_ + col, cols_, rows, cols, out, ld, slope_});
  }

 private:
  struct Multiply {
    const S* y;
    int64_t ldy;
    int rows, cols;
    T* out;
    int64_t ld;
    T slope;

    template <Activation A>
    void operator()(ActivationTag<A>) const {
      for (int r = 0; r < rows; ++r)
#pragma omp simd
        for (int c = 0; c < cols; ++c)
          out[r * ld + c] = times_derivative<A>(out[r * ld + c], T(widen(y[r * ldy + c])), slope);
    }
  };

  Dense<S> grad_y_;
  const S* y_;
  int64_t cols_;
  Activation activation_;
  T slope_;
};

// The gradient of a maxout layer's pre-activations (m, units * pieces): grad_y where the piece won, else 0.
template <class S>
class MaxoutGrad : public Operand<Compute<S>> {
  using T = Compute<S>;

 public:
  MaxoutGrad(const Matrix& grad_y, const uint8_t* argmax, int64_t pieces, bool inner_is_col)
      : Operand<T>(inner_is_col), g_(grad_y), argmax_(argmax), pieces_(pieces) {}

  void block(int64_t row, int rows, int64_t col, int cols, T* out, int64_t ld) const override {
    const int64_t first = col / pieces_, last = (col + cols - 1) / pieces_;  // units
    for (int r = 0; r < rows; ++r) {
      const S* g = static_cast<const S*>(g_.data) + (row + r) * g_.row_stride;
      const uint8_t* winner = argmax_ + (row + r) * g_.cols;
      for (int c = 0; c < cols; ++c) out[r * ld + c] = T(0);
      for (int64_t unit = first; cols > 0 && unit <= last; ++unit) {
        const int64_t c = unit * pieces_ + winner[unit] - col;
        if (c >= 0 && c < cols) out[r * ld + c] = T(widen(g[unit * g_.col_stride]));
      }
    }
  }

 private:
  Matrix g_;
  const uint8_t* argmax_;
  int64_t pieces_;
};

}  // namespace pygan::cpu::PYGAN_ISA
