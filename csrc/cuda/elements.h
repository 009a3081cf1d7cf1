// What the elementwise kernels share: storage types, runs of elements that move in 16-byte loads and stores, and the
// size of a grid. Indices are 64-bit: tensors may have more than 2^31 elements.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "../core/half.h"
#include "launch.h"

namespace pygan::cuda {

// Half types are computed in fp32.
template <class S>
using Compute = std::conditional_t<std::is_same_v<S, double>, double, float>;

PYGAN_HD float widen(float x) { return x; }
PYGAN_HD double widen(double x) { return x; }
PYGAN_HD float widen(BFloat16 x) { return to_float(x); }
PYGAN_HD float widen(Float16 x) { return to_float(x); }

PYGAN_HD void narrow(float x, float* out) { *out = x; }
PYGAN_HD void narrow(double x, double* out) { *out = x; }
PYGAN_HD void narrow(float x, BFloat16* out) { *out = to_bfloat16(x); }
PYGAN_HD void narrow(float x, Float16* out) { *out = to_float16(x); }

// Calls f with a null pointer of the storage type.
template <class F>
void for_dtype(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f32:
      return f(static_cast<float*>(nullptr));
    case DType::f64:
      return f(static_cast<double*>(nullptr));
    case DType::bf16:
      return f(static_cast<BFloat16*>(nullptr));
    case DType::f16:
      return f(static_cast<Float16*>(nullptr));
  }
}

constexpr int kVectorBytes = 16;

// What one thread handles at a time: at least a vector, and whole Philox blocks.
template <class S>
constexpr int kRun = sizeof(S) < 4 ? kVectorBytes / int(sizeof(S)) : 4;

template <class S, int N>
struct alignas(kVectorBytes) Vectors {
  S element[N];
};

// Whether runs of all these arrays may be moved as vectors.
template <class... Pointers>
PYGAN_HD bool aligned(Pointers... pointers) {
  return (reinterpret_cast<uintptr_t>(pointers) | ...) % kVectorBytes == 0;
}

// The next run of an array of which n elements are left; what is not there reads as 0.
template <class S, int N>
__device__ __forceinline__ void load_run(const S* in, int64_t n, bool vector, Compute<S> (&values)[N]) {
  if (vector && n >= N) {
    const Vectors<S, N> run = *reinterpret_cast<const Vectors<S, N>*>(in);
#pragma unroll
    for (int j = 0; j < N; ++j) values[j] = widen(run.element[j]);
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j) values[j] = j < n ? widen(in[j]) : Compute<S>(0);
  }
}

template <class S, int N>
__device__ __forceinline__ void store_run(const Compute<S> (&values)[N], int64_t n, bool vector, S* out) {
  if (vector && n >= N) {
    Vectors<S, N> run;
#pragma unroll
    for (int j = 0; j < N; ++j) narrow(values[j], &run.element[j]);
    *reinterpret_cast<Vectors<S, N>*>(out) = run;
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j)
      if (j < n) narrow(values[j], out + j);
  }
}

constexpr int kThreads = 256;

PYGAN_HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A thread for each item, but no more than a few times what the device holds: threads go on in strides.
inline dim3 grid_of(int64_t items) {
  constexpr int kBlocksOfMultiprocessor = 32;
  const int64_t blocks = ceil_div(items, kThreads),
                bound = int64_t(device_limits().multiprocessors) * kBlocksOfMultiprocessor;
  return dim3(unsigned(blocks < bound ? blocks : bound));
}

__device__ __forceinline__ int64_t first_item() { return int64_t(blockIdx.x) * kThreads + threadIdx.x; }
__device__ __forceinline__ int64_t item_stride() { return int64_t(gridDim.x) * kThreads; }

}  // namespace pygan::cuda
