// What consumes a product. A source gives finished sums: source(r, l) is row r, column l of a region of C, source.quad
// four columns of it, and source.staged a place in shared memory for all of them. The threads of a block share the
// region. The sources are in gemm.h: a tile in shared memory, or products in device memory.
#pragma once

#include "../core/activation.h"
#include "mask.h"
#include "runs.h"

namespace pygan::cuda {

// A region of C: rows [row, row + rows) x columns [col, col + cols).
struct Region {
  int64_t row, col;
  int rows, cols;
};

// A region's sums in shared memory.
template <class T>
struct Staged {
  T* value;
  int ld;
};

// Four columns at a time, so that fp32 is written 16 bytes an instruction.
constexpr int kQuad = 4;

template <class S>
inline bool quads_aligned(const void* data, int64_t ld) {
  return reinterpret_cast<uintptr_t>(data) % (kQuad * sizeof(S)) == 0 && ld % kQuad == 0;
}

// f(r, l, count, values) over the quads of a region.
template <class T, class Source, class F>
__device__ void for_each_quad(const Source& source, const Region& region, const F& f) {
  const int quads = (region.cols + kQuad - 1) / kQuad;
  for (int q = int(threadIdx.x); q < region.rows * quads; q += int(blockDim.x)) {
    const int r = q / quads, l = q % quads * kQuad;
    const int count = region.cols - l < kQuad ? region.cols - l : kQuad;
    T values[kQuad];
    source.quad(r, l, count, values);
    f(r, l, count, values);
  }
}

// y = act(C + bias); or, with argmax, y = max over `pieces` neighbouring columns of C + bias.
template <class S>
struct LayerOutput {
  using T = Compute<S>;

  const S* bias;  // or null
  S* y;
  uint8_t* argmax;  // null for an activation
  int64_t ld;       // of y
  int pieces;
  Activation activation;
  T slope;
  bool aligned;  // y and bias

  static LayerOutput of(const LinearActForward& op) {
    return {static_cast<const S*>(op.bias),
            static_cast<S*>(op.y),
            nullptr,
            op.weight.rows,
            1,
            op.activation,
            T(op.slope),
            quads_aligned<S>(op.y, op.weight.rows) && quads_aligned<S>(op.bias, op.weight.rows)};
  }

  static LayerOutput of(const MaxoutForward& op) {
    return {static_cast<const S*>(op.bias),
            static_cast<S*>(op.y),
            op.argmax,
            op.weight.rows / op.pieces,
            int(op.pieces),
            Activation::identity,
            T(0),
            false};
  }

  // Columns of C that must stay together in a region.
  int granule() const { return pieces; }

  template <class Source>
  __device__ void consume(Source&& source, const Region& region) const {
    if (argmax)
      consume_maxout(source, region);
    else
      for_each_quad<T>(source, region, Activate{*this, region});
  }

 private:
  struct Activate {
    const LayerOutput& to;
    const Region& region;

    __device__ void operator()(int r, int l, int count, T (&v)[kQuad]) const {
      const int64_t col = region.col + l;
      if (to.bias) {
        T bias[kQuad];
        load_run(to.bias + col, count, to.aligned, bias);
#pragma unroll
        for (int i = 0; i < kQuad; ++i) v[i] += bias[i];
      }
      for_activation(to.activation, [&](auto tag) {
#pragma unroll
        for (int i = 0; i < kQuad; ++i) v[i] = activate<decltype(tag)::kValue>(v[i], to.slope);
      });
      store_run(v, count, to.aligned, to.y + (region.row + r) * to.ld + col);
    }
  };

  // The sums with their bias meet in shared memory, a column a lane, so that each is read once in whole transactions;
  // then a thread has the pieces of a unit.
  template <class Source>
  __device__ void consume_maxout(Source& source, const Region& region) const {
    constexpr int kLanes = 32;
    const Staged<T> sums = source.staged(region.cols);
    const int lane = int(threadIdx.x) % kLanes, warp = int(threadIdx.x) / kLanes, warps = int(blockDim.x) / kLanes;
    for (int l = lane; l < region.cols; l += kLanes) {
      const T b = bias ? T(widen(bias[region.col + l])) : T(0);
      for (int r = warp; r < region.rows; r += warps) sums.value[r * sums.ld + l] = source(r, l) + b;
    }
    __syncthreads();  // the region's sums are there
    const int units = region.cols / pieces;
    for (int e = int(threadIdx.x); e < region.rows * units; e += int(blockDim.x)) {
      const int r = e / units, unit = e % units;
      const T* const of_unit = sums.value + r * sums.ld + unit * pieces;
      T best = of_unit[0];
      int winner = 0;
#pragma unroll 2  // with more, fp64 spills on sm_120
      for (int piece = 1; piece < pieces; ++piece) {
        const T value = of_unit[piece];
        // NaN wins and stays, the first of equals wins: as torch.max
        if (value > best || (value != value && best == best)) {
          best = value;
          winner = piece;
        }
      }
      const int64_t element = (region.row + r) * ld + region.col / pieces + unit;
      y[element] = narrow<S>(best);
      argmax[element] = uint8_t(winner);
    }
  }
};

// out = C, times the dropout mask of the element where there is one.
template <class S>
struct Store {
  using T = Compute<S>;

  S* out;
  int64_t ld;
  Mask<T> mask;
  bool aligned;

  Store(void* out, int64_t ld, const Dropout& dropout = {})
      : out(static_cast<S*>(out)), ld(ld), mask(dropout), aligned(quads_aligned<S>(out, ld)) {}

  int granule() const { return 1; }

  template <class Source>
  __device__ void consume(const Source& source, const Region& region) const {
    for_each_quad<T>(source, region, Write{*this, region});
  }

 private:
  struct Write {
    const Store& to;
    const Region& region;

    __device__ void operator()(int r, int l, int count, T (&v)[kQuad]) const {
      const int64_t element = (region.row + r) * to.ld + region.col + l;
      if (to.mask.on()) to.mask.apply(v, uint64_t(element));
      store_run(v, count, to.aligned, to.out + element);
    }
  };
};

}  // namespace pygan::cuda
