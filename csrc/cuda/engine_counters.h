// What an iteration of the native engine takes from its number, in device memory: the first launch of an iteration
// writes it, so that the launches themselves are the same in every iteration and a CUDA graph can repeat them.
#pragma once

#include "../core/optimizer.h"
#include "mask.h"
#include "runs.h"

namespace pygan::cuda {

struct Clock {
  int64_t next;  // the iteration that begins next
  int64_t done;  // iterations begun in this run: the row of the statistics is the one before
  int bad;       // the current iteration left a statistic that is not finite
  int stopped;   // so did one before: nothing is changed any more
};

// In an alternating iteration the generator runs once, on the rows of all steps: k groups of m for the
// discriminator's steps, and a last one for its own. In a simultaneous one the last step's rows are also its own.
struct Counters {
  Clock* clock;
  int64_t* rows;       // (k, m) of the data set
  uint64_t* noise;     // (k + 1) offsets, a group of the generator's rows each
  uint64_t* g_masks;   // (k + 1) offsets of its dropout, likewise; layer i adds i << 48
  uint64_t* d_masks;   // (2 k + 1) of the discriminator's: real and generated rows of each step, the generator's step
  double* rates;       // (k + 1, 2): see Update
  double* statistics;  // (iterations of a run, kStatistics)
};

// The dropout mask of rows that come in groups, each with a stream and a count of its own.
template <class T>
struct GroupedMask {
  Mask<T> mask;
  const uint64_t* offsets;  // of groups
  uint32_t group_rows;

  GroupedMask(double p, uint64_t seed, int layer, const uint64_t* offsets, int64_t group_rows)
      : mask(Dropout{p, seed, make_offset(uint64_t(layer), 0)}), offsets(offsets), group_rows(uint32_t(group_rows)) {}

  __device__ __forceinline__ bool on() const { return mask.on(); }

  // values[i] *= mask of (row, col + i), of rows that are `cols` long
  template <int kCount>
  __device__ __forceinline__ void apply(T (&values)[kCount], int64_t row, int64_t col, int64_t cols) const {
    const uint32_t group = uint32_t(row) / group_rows;
    Mask<T> of_group = mask;
    of_group.offset += offsets[group];
    const uint64_t first = uint64_t(uint32_t(row) - group * group_rows) * uint64_t(cols) + uint64_t(col);
    if constexpr (kCount % 4 == 0) {
      if (first % 4 == 0) return of_group.apply_blocks(values, first);
    }
    of_group.apply(values, first);
  }
};

// The optimizer's rule on one parameter tensor, its gradient handed over by whoever has just computed it.
template <class S>
struct Update {
  using T = Compute<S>;

  S *param, *state1, *state2;
  const Clock* clock;
  const double* rates;  // (2) lr and momentum, or Adam's step size and 1 / sqrt(correction2)
  bool adam, vector;
  T rest1, beta2, rest2, eps;

  Update(const Mlp& mlp, int64_t first, const Clock* clock, const double* rates)
      : param(at(mlp.params, first)),
        state1(at(mlp.state1, first)),
        state2(at(mlp.state2, first)),
        clock(clock),
        rates(rates),
        adam(mlp.adam),
        vector(quad(param) && quad(state1) && quad(state2)),
        rest1(T(1 - mlp.adam_rule.beta1)),
        beta2(T(mlp.adam_rule.beta2)),
        rest2(T(1 - mlp.adam_rule.beta2)),
        eps(T(mlp.adam_rule.eps)) {}

  // No tensor.
  Update() : param(nullptr) {}

  __device__ __forceinline__ bool on() const { return !clock->stopped; }

  // Elements first ... first + count - 1; `whole`: first is a multiple of kCount.
  template <int kCount>
  __device__ __forceinline__ void apply(int64_t first, int64_t count, bool whole, const T (&grad)[kCount]) const {
    T p[kCount], a[kCount], b[kCount];
    load_run(param + first, count, vector && whole, p);
    load_run(state1 + first, count, vector && whole, a);
    if (adam) {
      load_run(state2 + first, count, vector && whole, b);
      const Adam<T> rule{T(rates[0]), T(rates[1]), rest1, beta2, rest2, eps};
#pragma unroll
      for (int i = 0; i < kCount; ++i) rule(p + i, grad[i], a + i, b + i);
      store_run(b, count, vector && whole, state2 + first);
    } else {
      const Momentum<T> rule{T(rates[0]), T(rates[1])};
#pragma unroll
      for (int i = 0; i < kCount; ++i) rule(p + i, grad[i], a + i);
    }
    store_run(p, count, vector && whole, param + first);
    store_run(a, count, vector && whole, state1 + first);
  }

 private:
  static S* at(void* flat, int64_t first) { return flat && first >= 0 ? static_cast<S*>(flat) + first : nullptr; }
  // Whether four elements can be moved as vectors.
  static bool quad(const S* data) { return reinterpret_cast<uintptr_t>(data) % (4 * sizeof(S)) == 0; }
};

}  // namespace pygan::cuda
