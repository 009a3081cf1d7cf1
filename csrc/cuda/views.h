// Matrices as kernels see them.
#pragma once

#include <cuda_runtime.h>

#include "types.h"

namespace pygan::cuda {

template <class S>
struct alignas(16) Chunk {
  S value[kVector<S>];
};

// How many elements of a chunk lie inside a row of which `left` elements are left.
template <class S>
__device__ int valid_of_chunk(int64_t left) {
  return left > kVector<S> ? kVector<S> : left > 0 ? int(left) : 0;
}

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

  // Elements col ... col + kVector - 1 of a row, zero beyond `count`.
  __device__ Chunk<S> chunk(int64_t row, int64_t col, int count) const {
    if (vectorised && count == kVector<S>) return *reinterpret_cast<const Chunk<S>*>(at(row, col));
    Chunk<S> chunk;
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i) chunk.value[i] = i < count ? *at(row, col + i) : S{};
    return chunk;
  }
};

}  // namespace pygan::cuda
