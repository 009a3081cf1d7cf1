// What a layer multiplies, chunk by chunk: copied as it lies in memory where that will do, else made on the fly.
#pragma once

#include "../core/activation.h"
#include "views.h"

namespace pygan::cuda {

// dropout(x); without dropout and with aligned rows, x itself.
template <class S>
struct Dense {
  View<S> x;
  Mask<Compute<S>> mask;
  bool copied;  // chunks can go to shared memory untouched

  explicit Dense(const Matrix& matrix, const Dropout& dropout = {})
      : x(matrix), mask(dropout), copied(x.vectorised && mask.threshold == 0) {}

  __device__ int valid(int64_t row, int64_t col) const { return x.valid(row, col); }
  __device__ const S* at(int64_t row, int64_t col) const { return x.at(row, col); }

  __device__ Chunk<S> chunk(int64_t row, int64_t col, int count) const {
    Chunk<S> chunk = x.chunk(row, col, count);
    if (!mask.on()) return chunk;
    Compute<S> values[kVector<S>];
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i) values[i] = widen(chunk.value[i]);
    mask.apply(values, uint64_t(row * x.cols + col));
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i) chunk.value[i] = i < count ? narrow<S>(values[i]) : S{};
    return chunk;
  }
};

// The gradient of a layer's pre-activations (m, n): grad_y * act'(y), or for maxout grad_y where the piece won.
template <class S>
struct PreActivationGrad {
  View<S> grad_y;
  const S* y;             // (m, n), contiguous; null for maxout
  const uint8_t* argmax;  // (m, n / pieces), contiguous
  int64_t n;
  int pieces;
  Activation activation;
  Compute<S> slope;
  bool vectorised;  // y
  bool copied;

  static PreActivationGrad of(const LinearActBackward& op) {
    const bool vectorised = reinterpret_cast<uintptr_t>(op.y) % 16 == 0 && op.grad_y.cols % kVector<S> == 0;
    const View<S> grad_y(op.grad_y);
    return {grad_y,
            static_cast<const S*>(op.y),
            nullptr,
            op.grad_y.cols,
            1,
            op.activation,
            Compute<S>(op.slope),
            vectorised,
            op.activation == Activation::identity && grad_y.vectorised};
  }

  static PreActivationGrad of(const MaxoutBackward& op) {
    return {View<S>(op.grad_y), nullptr, op.argmax, op.grad_y.cols * op.pieces, int(op.pieces), Activation::identity,
            Compute<S>(0),      false,   false};
  }

  __device__ int valid(int64_t row, int64_t col) const {
    const int64_t left = row < grad_y.rows ? n - col : 0;
    return left > kVector<S> ? kVector<S> : left > 0 ? int(left) : 0;
  }
  __device__ const S* at(int64_t row, int64_t col) const { return grad_y.at(row, col); }

  __device__ Chunk<S> chunk(int64_t row, int64_t col, int count) const {
    return argmax ? won(row, col, count) : times_derivative(row, col, count);
  }

 private:
  __device__ Chunk<S> won(int64_t row, int64_t col, int count) const {
    Chunk<S> chunk;
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i) {
      const int64_t unit = (col + i) / pieces;
      const bool winner = i < count && argmax[row * (n / pieces) + unit] == col + i - unit * pieces;
      chunk.value[i] = winner ? *grad_y.at(row, unit) : S{};
    }
    return chunk;
  }

  __device__ Chunk<S> times_derivative(int64_t row, int64_t col, int count) const {
    Chunk<S> g = grad_y.chunk(row, col, count), out;
    const S* const source = y + row * n + col;
    if (vectorised && count == kVector<S>)
      out = *reinterpret_cast<const Chunk<S>*>(source);
    else
#pragma unroll
      for (int i = 0; i < kVector<S>; ++i) out.value[i] = i < count ? source[i] : S{};
    switch (activation) {
      case Activation::identity:
        return g;
      case Activation::relu:
        return multiplied<Activation::relu>(g, out);
      case Activation::leaky_relu:
        return multiplied<Activation::leaky_relu>(g, out);
      case Activation::tanh:
        return multiplied<Activation::tanh>(g, out);
      case Activation::sigmoid:
        return multiplied<Activation::sigmoid>(g, out);
      case Activation::elu:
        return multiplied<Activation::elu>(g, out);
      case Activation::softplus:
        return multiplied<Activation::softplus>(g, out);
    }
    return g;
  }

  template <Activation kActivation>
  __device__ Chunk<S> multiplied(Chunk<S> g, const Chunk<S>& out) const {
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i)
      g.value[i] = narrow<S>(
          Compute<S>(widen(g.value[i]) * derivative_from_output<kActivation>(Compute<S>(widen(out.value[i])), slope)));
    return g;
  }
};

}  // namespace pygan::cuda
