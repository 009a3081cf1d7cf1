// Matrices and masks as kernels see them.
#pragma once

#include <cuda_runtime.h>

#include "../core/philox.h"
#include "math.h"

namespace pygan::cuda {

// Elements of S in 16 bytes: what one instruction moves.
template <class S>
constexpr int kVector = 16 / int(sizeof(S));

template <class S>
struct alignas(16) Chunk {
  S value[kVector<S>];
};

// A read-only strided matrix. `vectorised`: whole chunks can be read at columns that are multiples of kVector.
template <class S>
struct View {
  const S* data;
  int64_t rows, cols, row_stride, col_stride;
  bool vectorised;

  explicit View(const Matrix& m)
      : data(static_cast<const S*>(m.data)),
        rows(m.rows),
        cols(m.cols),
        row_stride(m.row_stride),
        col_stride(m.col_stride),
        vectorised(m.col_stride == 1 && reinterpret_cast<uintptr_t>(m.data) % 16 == 0 &&
                   (m.rows < 2 || m.row_stride % kVector<S> == 0)) {}

  __device__ const S* at(int64_t row, int64_t col) const { return data + row * row_stride + col * col_stride; }

  // How many of the chunk's elements lie inside the matrix.
  __device__ int valid(int64_t row, int64_t col) const {
    const int64_t left = row < rows ? cols - col : 0;
    return left > kVector<S> ? kVector<S> : left > 0 ? int(left) : 0;
  }

  // Elements col ... col + kVector - 1 of a row, zero beyond `count`.
  __device__ Chunk<S> chunk(int64_t row, int64_t col, int count) const {
    if (vectorised && count == kVector<S>) return *reinterpret_cast<const Chunk<S>*>(at(row, col));
    Chunk<S> chunk;
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i) chunk.value[i] = i < count ? *at(row, col + i) : S{};
    return chunk;
  }
};

// The mask of dropout(p), a function of the element's linear index alone.
template <class T>
struct Mask {
  uint32_t threshold;
  T scale;
  uint64_t seed, offset;

  explicit Mask(const Dropout& dropout)
      : threshold(dropout_threshold(dropout.p)),
        scale(T(1.0 / (1.0 - dropout.p))),
        seed(dropout.seed),
        offset(dropout.offset) {}

  __device__ bool on() const { return threshold != 0; }

  // values[i] *= mask of element first + i
  template <int kCount>
  __device__ void apply(T (&values)[kCount], uint64_t first) const {
    PhiloxBlock block = philox_block(seed, offset, first / 4);
    uint64_t of_block = first / 4;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const uint64_t element = first + uint64_t(i);
      if (element / 4 != of_block) {
        of_block = element / 4;
        block = philox_block(seed, offset, of_block);
      }
      const uint32_t lane = uint32_t(element % 4);
      const uint32_t low = lane & 1 ? block.word[1] : block.word[0], high = lane & 1 ? block.word[3] : block.word[2];
      values[i] *= (lane & 2 ? high : low) >= threshold ? scale : T(0);
    }
  }
};

}  // namespace pygan::cuda
