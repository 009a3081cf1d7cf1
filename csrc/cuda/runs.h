// Runs of neighbouring elements, moved in 16-byte loads and stores where they are aligned.
#pragma once

#include <cuda_runtime.h>

#include "types.h"

namespace pygan::cuda {

// What one thread handles at a time, of elements that are computed one by one.
template <class S>
constexpr int kRun = kVector<S>;

template <class S, int N>
struct alignas(N * sizeof(S) < kVectorBytes ? N * sizeof(S) : kVectorBytes) Vectors {
  S element[N];
};

// Whether runs of all these arrays may be moved as vectors.
template <class... Pointers>
PYGAN_HD bool aligned(Pointers... pointers) {
  return (reinterpret_cast<uintptr_t>(pointers) | ...) % kVectorBytes == 0;
}

// The next run of an array of which n elements are left; what is not there reads as 0. As it is stored:
template <int N, class S>
__device__ __forceinline__ Vectors<S, N> stored_run(const S* in, int64_t n, bool vector) {
  if (vector && n >= N) return *reinterpret_cast<const Vectors<S, N>*>(in);
  Vectors<S, N> run;
#pragma unroll
  for (int j = 0; j < N; ++j) run.element[j] = j < n ? in[j] : S{};
  return run;
}

template <class S, int N>
__device__ __forceinline__ void load_run(const S* in, int64_t n, bool vector, Compute<S> (&values)[N]) {
  const Vectors<S, N> run = stored_run<N>(in, n, vector);
#pragma unroll
  for (int j = 0; j < N; ++j) values[j] = widen(run.element[j]);
}

template <class S, int N>
__device__ __forceinline__ void store_run(const Compute<S> (&values)[N], int64_t n, bool vector, S* out) {
  if (vector && n >= N) {
    Vectors<S, N> run;
#pragma unroll
    for (int j = 0; j < N; ++j) run.element[j] = narrow<S>(values[j]);
    *reinterpret_cast<Vectors<S, N>*>(out) = run;
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j)
      if (j < n) out[j] = narrow<S>(values[j]);
  }
}

}  // namespace pygan::cuda
