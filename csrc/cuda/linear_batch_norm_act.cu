// act(batch_norm(x W^T + b)) and its backward: the layer's products are those of linear_act; here is what lies between
// product and activation. A block has 32 columns and all their rows, which its warps share out: it takes the
// statistics, in two passes over what the product has just left in the second-level cache, and normalises. Sums are
// added up in a fixed order, in double.
#include <algorithm>

#include "../core/activation.h"
#include "backend.h"
#include "block_sum.h"
#include "elements.h"
#include "layer.h"
#include "ptx.h"

namespace pygan::cuda {
namespace {

constexpr int kBlock = 512;
constexpr int kWarps = kBlock / kWarp;

// Sums of columns, `kCount` each.
template <int kCount>
struct SumStorage {
  double warps[kCount][kWarps][kWarp];
};

// The sums over the block's warps of what each lane has for its column; in every thread.
template <int kCount>
__device__ __forceinline__ void column_sums(double (&sums)[kCount], SumStorage<kCount>& shared) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (int s = 0; s < kCount; ++s) shared.warps[s][warp][lane] = sums[s];
  __syncthreads();  // every warp's sums are there
#pragma unroll
  for (int s = 0; s < kCount; ++s) {
    sums[s] = 0;
    for (int w = 0; w < kWarps; ++w) sums[s] += shared.warps[s][w][lane];
  }
  __syncthreads();  // the sums were read: the next call may overwrite them
}

template <class S>
struct Normalize {
  int64_t m, n;
  const S* h;
  const Compute<S>*gamma, *beta, *given_mean, *given_variance;
  double eps;
  Activation activation;
  Compute<S> slope;
  S* y;
  Compute<S>*mean, *inverse, *variance;
};

// What a thread does for its column, statistics being there.
template <class S>
struct WriteColumn {
  const Normalize<S>& op;
  int64_t j;
  Compute<S> mean, scale, shift;

  template <Activation A>
  __device__ void operator()(ActivationTag<A>) const {
    for (int64_t i = threadIdx.x / kWarp; i < op.m; i += kWarps) {
      const Compute<S> value = (widen(op.h[i * op.n + j]) - mean) * scale + shift;
      op.y[i * op.n + j] = narrow<S>(activate<A>(value, op.slope));
    }
  }
};

template <class S>
__global__ void __launch_bounds__(kBlock, 2) normalize_kernel(Normalize<S> op) {
  using T = Compute<S>;
  auto& shared = shared_storage<SumStorage<1>>();
  const int warp = threadIdx.x / kWarp;
  const int64_t j = int64_t(blockIdx.x) * kWarp + threadIdx.x % kWarp;
  const bool inside = j < op.n;
  T mean = 0;
  double variance = 0;
  if (op.given_mean) {
    if (!inside) return;  // all of the block take this branch: nobody waits below
    mean = op.given_mean[j];
    variance = double(op.given_variance[j]);
  } else {
    double sum[1] = {0};
    for (int64_t i = warp; inside && i < op.m; i += kWarps) sum[0] += double(widen(op.h[i * op.n + j]));
    column_sums(sum, shared);
    mean = T(sum[0] / double(op.m));
    sum[0] = 0;
    for (int64_t i = warp; inside && i < op.m; i += kWarps) {
      const double off = double(widen(op.h[i * op.n + j]) - mean);
      sum[0] += off * off;
    }
    column_sums(sum, shared);
    if (!inside) return;
    variance = sum[0] / double(op.m);
    if (warp == 0) op.variance[j] = T(sum[0] / double(op.m - 1));
  }
  const T inverse = T(1 / sqrt(variance + op.eps));
  if (warp == 0) {
    op.mean[j] = mean;
    op.inverse[j] = inverse;
  }
  const T scale = op.gamma ? op.gamma[j] * inverse : inverse, shift = op.beta ? op.beta[j] : T(0);
  for_activation(op.activation, WriteColumn<S>{op, j, mean, scale, shift});
}

template <class S>
struct Gradient {
  int64_t m, n;
  const S *grad_y, *h, *y;
  const Compute<S>*gamma, *mean, *inverse;
  bool batch_statistics;
  Activation activation;
  Compute<S> slope;
  S* grad_h;
  Compute<S>*grad_gamma, *grad_beta;
};

template <class S>
struct GradientOfColumn {
  using T = Compute<S>;
  const Gradient<S>& op;
  SumStorage<2>& shared;
  int64_t j;

  template <Activation A>
  __device__ void operator()(ActivationTag<A>) const {
    const int warp = threadIdx.x / kWarp;
    const bool inside = j < op.n;
    const T mean = inside ? op.mean[j] : T(0), inverse = inside ? op.inverse[j] : T(0);
    double sums[2] = {0, 0};
    for (int64_t i = warp; inside && i < op.m; i += kWarps) {
      const T g = of_activation<A>(i);
      sums[0] += double(g);
      sums[1] += double(g * (widen(op.h[i * op.n + j]) - mean) * inverse);
    }
    column_sums(sums, shared);
    if (!inside) return;
    if (warp == 0) {
      op.grad_beta[j] = T(sums[0]);
      op.grad_gamma[j] = T(sums[1]);
    }
    const T scale = op.gamma ? op.gamma[j] * inverse : inverse;
    const T mean_g = op.batch_statistics ? T(sums[0] / double(op.m)) : T(0);
    const T mean_gz = op.batch_statistics ? T(sums[1] / double(op.m)) : T(0);
    for (int64_t i = warp; i < op.m; i += kWarps) {
      const T z = (widen(op.h[i * op.n + j]) - mean) * inverse;
      op.grad_h[i * op.n + j] = narrow<S>(scale * (of_activation<A>(i) - mean_g - z * mean_gz));
    }
  }

  template <Activation A>
  __device__ __forceinline__ T of_activation(int64_t i) const {
    return times_derivative<A>(widen(op.grad_y[i * op.n + j]), widen(op.y[i * op.n + j]), op.slope);
  }
};

template <class S>
__global__ void __launch_bounds__(kBlock, 2) gradient_kernel(Gradient<S> op) {
  const int64_t j = int64_t(blockIdx.x) * kWarp + threadIdx.x % kWarp;
  for_activation(op.activation, GradientOfColumn<S>{op, shared_storage<SumStorage<2>>(), j});
}

// x W^T + b or its backward, as a layer without activation.
LinearActForward product_of(const LinearBatchNormForward& op) {
  return {op.dtype, op.x, op.weight, op.bias, Activation::identity, 0, {}, op.h ? op.h : op.y, op.run};
}

template <class S>
void forward(const LinearBatchNormForward& op) {
  using T = Compute<S>;
  if (!op.has_product) layer_forward(product_of(op));
  const int64_t n = op.weight.rows;
  if (n == 0) return;
  launch(
      op.run, normalize_kernel<S>, unsigned(ceil_div(n, kWarp)), kBlock, sizeof(SumStorage<1>),
      Normalize<S>{op.x.rows, n, static_cast<const S*>(op.h ? op.h : op.y), static_cast<const T*>(op.gamma),
                   static_cast<const T*>(op.beta), static_cast<const T*>(op.given_mean),
                   static_cast<const T*>(op.given_variance), op.eps, op.activation, T(op.slope), static_cast<S*>(op.y),
                   static_cast<T*>(op.mean), static_cast<T*>(op.inverse), static_cast<T*>(op.variance)});
}

template <class S>
void backward(const LinearBatchNormBackward& op) {
  using T = Compute<S>;
  const int64_t m = op.x.rows, n = op.weight.rows;
  if (n > 0)
    launch(op.run, gradient_kernel<S>, unsigned(ceil_div(n, kWarp)), kBlock, sizeof(SumStorage<2>),
           Gradient<S>{m, n, static_cast<const S*>(op.grad_y), static_cast<const S*>(op.h), static_cast<const S*>(op.y),
                       static_cast<const T*>(op.gamma), static_cast<const T*>(op.mean),
                       static_cast<const T*>(op.inverse), op.batch_statistics, op.activation, T(op.slope),
                       static_cast<S*>(op.grad_h), static_cast<T*>(op.grad_gamma), static_cast<T*>(op.grad_beta)});
  void* grad_bias = op.grad_bias;
  if (grad_bias && op.batch_statistics) {
    // what is taken off by the batch's mean does not change the result
    check(cudaMemsetAsync(grad_bias, 0, size_t(n) * sizeof(S), static_cast<cudaStream_t>(op.run.stream)),
          "cudaMemsetAsync");
    grad_bias = nullptr;
  }
  layer_backward(LinearActBackward{op.dtype,
                                   {op.grad_h, m, n, n, 1},
                                   op.x,
                                   op.weight,
                                   op.grad_h,
                                   Activation::identity,
                                   0,
                                   {},
                                   op.grad_x,
                                   op.grad_weight,
                                   grad_bias,
                                   op.run});
}

}  // namespace

void linear_batch_norm_act_forward(const LinearBatchNormForward& op) {
  for_dtype(op.dtype, [&](auto* tag) { forward<std::remove_pointer_t<decltype(tag)>>(op); });
}

void linear_batch_norm_act_backward(const LinearBatchNormBackward& op) {
  for_dtype(op.dtype, [&](auto* tag) { backward<std::remove_pointer_t<decltype(tag)>>(op); });
}

}  // namespace pygan::cuda
