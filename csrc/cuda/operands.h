// What a layer multiplies, chunk by chunk: copied as it lies in memory where that will do, else made on the fly. Small
// products, which are launches more than they are work, make what they need as it enters shared memory; large ones,
// whose blocks would make the same chunk many times over, find it made (make_copied).
#pragma once

#include <algorithm>

#include "../core/activation.h"
#include "launch.h"
#include "mask.h"
#include "views.h"

namespace pygan::cuda {

// An aligned matrix with unit column stride.
template <class S>
struct Copied {
  static constexpr bool kAlways = true;
  static constexpr bool copied = true;

  const S* data;
  int64_t rows, cols, row_stride;

  __device__ const S* at(int64_t row, int64_t col) const { return data + row * row_stride + col; }
  __device__ int valid(int64_t row, int64_t col) const { return valid_of_chunk<S>(row < rows ? cols - col : 0); }
};

// Any strided matrix.
template <class S>
struct Dense {
  static constexpr bool kAlways = false;

  View<S> x;
  bool copied;  // chunks can go to shared memory untouched

  explicit Dense(const Matrix& matrix) : x(matrix), copied(x.vectorised) {}

  int64_t rows() const { return x.rows; }
  int64_t cols() const { return x.cols; }
  Copied<S> as_copied() const { return {x.data, x.rows, x.cols, x.row_stride}; }

  __device__ int valid(int64_t row, int64_t col) const { return valid_of_chunk<S>(row < x.rows ? x.cols - col : 0); }
  __device__ const S* at(int64_t row, int64_t col) const { return x.at(row, col); }
  __device__ Chunk<S> chunk(int64_t row, int64_t col, int count) const { return x.chunk(row, col, count); }
};

// dropout(x)
template <class S>
struct Dropped : Dense<S> {
  Mask<Compute<S>> mask;

  Dropped(const Matrix& matrix, const Dropout& dropout) : Dense<S>(matrix), mask(dropout) {
    this->copied &= mask.threshold == 0;
  }

  __device__ Chunk<S> chunk(int64_t row, int64_t col, int count) const {
    Chunk<S> chunk = this->x.chunk(row, col, count);
    if (!mask.on()) return chunk;
    Compute<S> values[kVector<S>];
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i) values[i] = widen(chunk.value[i]);
    const uint64_t first = uint64_t(row * this->x.cols + col);
    if constexpr (kVector<S> % 4 == 0) {
      if (this->x.cols % 4 == 0)
        mask.apply_blocks(values, first);
      else
        mask.apply(values, first);
    } else {
      mask.apply(values, first);
    }
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i) chunk.value[i] = i < count ? narrow<S>(values[i]) : S{};
    return chunk;
  }
};

// The gradient of a layer's pre-activations (m, n): grad_y * act'(y), or for maxout grad_y where the piece won.
template <class S>
struct PreActivationGrad {
  static constexpr bool kAlways = false;

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

  int64_t rows() const { return grad_y.rows; }
  int64_t cols() const { return n; }
  Copied<S> as_copied() const { return {grad_y.data, grad_y.rows, n, grad_y.row_stride}; }

  __device__ int valid(int64_t row, int64_t col) const { return valid_of_chunk<S>(row < grad_y.rows ? n - col : 0); }
  __device__ const S* at(int64_t row, int64_t col) const { return grad_y.at(row, col); }

  __device__ Chunk<S> chunk(int64_t row, int64_t col, int count) const {
    return argmax ? won(row, col, count) : derived(row, col, count);
  }

 private:
  __device__ Chunk<S> won(int64_t row, int64_t col, int count) const {
    const uint8_t* const winners = argmax + row * grad_y.cols;
    int64_t unit = col / pieces;
    int piece = int(col - unit * pieces);
    int winner = 0;
    S g{};
    Chunk<S> chunk;
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i) {
      if (i < count && (i == 0 || piece == 0)) {  // once a unit, whoever won: neighbouring lanes read neighbours
        winner = winners[unit];
        g = *grad_y.at(row, unit);
      }
      chunk.value[i] = i < count && winner == piece ? g : S{};
      if (++piece == pieces) {
        piece = 0;
        ++unit;
      }
    }
    return chunk;
  }

  __device__ Chunk<S> derived(int64_t row, int64_t col, int count) const {
    Chunk<S> g = grad_y.chunk(row, col, count), out;
    const S* const source = y + row * n + col;
    if (vectorised && count == kVector<S>)
      out = *reinterpret_cast<const Chunk<S>*>(source);
    else
#pragma unroll
      for (int i = 0; i < kVector<S>; ++i) out.value[i] = i < count ? source[i] : S{};
    for_activation(activation, [&](auto tag) {
      constexpr Activation kActivation = decltype(tag)::kValue;
      if constexpr (kActivation != Activation::identity)
#pragma unroll
        for (int i = 0; i < kVector<S>; ++i)
          g.value[i] = narrow<S>(
              times_derivative<kActivation>(Compute<S>(widen(g.value[i])), Compute<S>(widen(out.value[i])), slope));
    });
    return g;
  }
};

constexpr int kMakeThreads = 256;

// The operand's rows, `ld` elements apart.
template <class S, class Operand>
__global__ void __launch_bounds__(kMakeThreads)
    make_kernel(const Operand operand, int64_t rows, int64_t chunks, bool whole_chunks, int64_t ld, S* out) {
  const int64_t stride = int64_t(gridDim.x) * kMakeThreads;
  for (int64_t e = int64_t(blockIdx.x) * kMakeThreads + threadIdx.x; e < rows * chunks; e += stride) {
    const int64_t row = e / chunks, col = e % chunks * kVector<S>;
    const int count = operand.valid(row, col);
    const Chunk<S> chunk = operand.chunk(row, col, count);
    S* const to = out + row * ld + col;
    if (whole_chunks)
      *reinterpret_cast<Chunk<S>*>(to) = chunk;
    else
#pragma unroll
      for (int i = 0; i < kVector<S>; ++i)
        if (i < count) to[i] = chunk.value[i];
  }
}

template <class S, class Operand>
void make(const Resources& run, const Operand& operand, int64_t ld, S* out) {
  const int64_t chunks = ceil_div(operand.cols(), kVector<S>);
  if (operand.rows() * chunks == 0) return;
  const int64_t blocks =
      std::min<int64_t>(ceil_div(operand.rows() * chunks, kMakeThreads), int64_t(device_limits().multiprocessors) * 16);
  const bool whole_chunks = ld % kVector<S> == 0 && reinterpret_cast<uintptr_t>(out) % kVectorBytes == 0;
  launch(run, make_kernel<S, Operand>, dim3(unsigned(blocks)), dim3(kMakeThreads), 0, operand, operand.rows(), chunks,
         whole_chunks, ld, out);
}

// The operand as a matrix: itself where it is one, else made in scratch by a launch of its own.
template <class S, class Operand>
Copied<S> make_copied(const Resources& run, const Operand& operand) {
  if (operand.copied || operand.rows() == 0 || operand.cols() == 0) return operand.as_copied();
  const int64_t ld = ceil_div(operand.cols(), kVector<S>) * kVector<S>;
  S* const made = scratch<S>(run, size_t(operand.rows() * ld));
  make(run, operand, ld, made);
  return {made, operand.rows(), operand.cols(), ld};
}

}  // namespace pygan::cuda
