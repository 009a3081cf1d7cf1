// What consumes the native engine's products: a layer's output, the gradient of the layer before, an update.
#pragma once

#include "engine_counters.h"
#include "gemm.h"

namespace pygan::cuda {

template <Activation kActivation, class T, int kCount>
__device__ __forceinline__ void times_derivatives(T (&g)[kCount], const T (&y)[kCount], T slope) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) g[i] = times_derivative<kActivation>(g[i], y[i], slope);
}

// g[i] *= act'(y[i])
template <class T, int kCount>
__device__ __forceinline__ void times_derivatives(Activation activation, T (&g)[kCount], const T (&y)[kCount],
                                                  T slope) {
  switch (activation) {
    case Activation::identity:
      return;
    case Activation::relu:
      return times_derivatives<Activation::relu>(g, y, slope);
    case Activation::leaky_relu:
      return times_derivatives<Activation::leaky_relu>(g, y, slope);
    case Activation::tanh:
      return times_derivatives<Activation::tanh>(g, y, slope);
    case Activation::sigmoid:
      return times_derivatives<Activation::sigmoid>(g, y, slope);
    case Activation::elu:
      return times_derivatives<Activation::elu>(g, y, slope);
    case Activation::softplus:
      return times_derivatives<Activation::softplus>(g, y, slope);
  }
}

// A layer's output, whose splits the product itself finishes.
template <class S>
struct FusedOutput : LayerOutput<S> {
  explicit FusedOutput(const LayerOutput<S>& output) : LayerOutput<S>(output) {}
};

// The gradient of the pre-activations of the layer before: C times the mask of its output times act' there.
template <class S>
struct StoreDerived {
  using T = Compute<S>;

  S* out;
  const S* y;  // like out
  int64_t cols;
  Activation activation;
  T slope;
  GroupedMask<T> mask;
  int64_t own_rows, back;  // mask and y of rows from `own_rows` on are those of the row so many before
  bool aligned;

  StoreDerived(S* out, const S* y, int64_t cols, Activation activation, double slope, const GroupedMask<T>& mask,
               int64_t own_rows, int64_t back)
      : out(out),
        y(y),
        cols(cols),
        activation(activation),
        slope(T(slope)),
        mask(mask),
        own_rows(own_rows),
        back(back),
        aligned(quads_aligned<S>(out, cols) && quads_aligned<S>(y, cols)) {}

  int granule() const { return 1; }

  template <class Source>
  __device__ void consume(const Source& source, const Region& region) const {
    for_each_quad<T>(source, region, Write{*this, region});
  }

 private:
  struct Write {
    const StoreDerived& to;
    const Region& region;

    __device__ void operator()(int r, int l, int count, T (&v)[kQuad]) const {
      const int64_t row = region.row + r, col = region.col + l, of = row < to.own_rows ? row : row - to.back;
      if (to.mask.on()) to.mask.apply(v, of, col, to.cols);
      if (to.activation != Activation::identity) {
        T y[kQuad];
        load_run(to.y + of * to.cols + col, count, to.aligned, y);
        times_derivatives(to.activation, v, y, to.slope);
      }
      store_run(v, count, to.aligned, to.out + row * to.cols + col);
    }
  };
};

// C is the gradient of a weight, and the sums of A's rows that of its bias: both are updated, neither is stored.
template <class S>
struct UpdateLayer {
  using T = Compute<S>;

  Update<S> weight, bias;
  int64_t cols;

  int granule() const { return 1; }

  template <class Source>
  __device__ void consume(const Source& source, const Region& region) const {
    if (weight.on()) for_each_quad<T>(source, region, Write{*this, region});
  }

  __device__ void row_sum(int64_t row, T sum) const {
    const T grad[1] = {sum};
    if (bias.on()) bias.apply(row, 1, false, grad);
  }

 private:
  struct Write {
    const UpdateLayer& to;
    const Region& region;

    __device__ void operator()(int r, int l, int count, const T (&v)[kQuad]) const {
      to.weight.apply((region.row + r) * to.cols + region.col + l, count, to.cols % kQuad == 0, v);
    }
  };
};

template <class S>
constexpr bool kFinishesSplits<FusedOutput<S>> = true;
template <class S>
constexpr bool kFinishesSplits<StoreDerived<S>> = true;
template <class S>
constexpr bool kFinishesSplits<UpdateLayer<S>> = true;
template <class S>
constexpr bool kTakesRowSums<UpdateLayer<S>> = true;
template <class S>
constexpr bool kNeverReduced<StoreDerived<S>> = true;
template <class S>
constexpr bool kNeverReduced<UpdateLayer<S>> = true;

}  // namespace pygan::cuda
