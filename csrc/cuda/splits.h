// Products whose inner dimension is shared between blocks: partial products in scratch, and who adds them up.
#pragma once

#include "epilogues.h"
#include "ptx.h"

namespace pygan::cuda {

// What an epilogue may ask for besides a finished region: that the kernel finishes splits too, that the sums of A's
// rows come to it, that no reduction is compiled since its columns never have to meet.
template <class Epilogue>
constexpr bool kFinishesSplits = false;
template <class Epilogue>
constexpr bool kTakesRowSums = false;
template <class Epilogue>
constexpr bool kNeverReduced = false;

template <class T>
struct StorePartial {
  T* out;  // at the region's first element
  int64_t ld;
  bool aligned;

  __device__ void operator()(int r, int l, int count, T (&values)[kQuad]) const {
    store_run(values, count, aligned, out + r * ld + l);
  }
};

// Whether all quads of a product's regions begin at multiples of kQuad in memory.
__device__ __forceinline__ bool partial_aligned(int64_t n, int region_cols) {
  return n % kQuad == 0 && region_cols % kQuad == 0;
}

// The sum of partial products, in their order: the same bits whatever ran when.
template <class T>
struct PartialSums {
  const T* partial;  // at the region's first element
  int64_t ld, stride;
  int splits;
  bool aligned;

  __device__ T operator()(int r, int l) const {
    T sum = 0;
    for (int s = 0; s < splits; ++s) sum += partial[s * stride + r * ld + l];
    return sum;
  }
  __device__ Staged<T> staged(int cols) const { return {&shared_storage<T>(), cols}; }
  __device__ void quad(int r, int l, int count, T (&values)[kQuad]) const {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) values[i] = T(0);
    for (int s = 0; s < splits; ++s) {
      T term[kQuad];
      load_run(partial + s * stride + r * ld + l, count, aligned, term);
#pragma unroll
      for (int i = 0; i < kQuad; ++i) values[i] += term[i];
    }
  }
};

// Which of the parts of the inner dimension a block takes.
struct Splits {
  unsigned index, count;
};

// The last block of a tile to arrive adds up the partial products of all, and consumes the sum.
template <class P, class Memory>
__device__ __forceinline__ void finish_split(const P& p, int64_t tile, const Splits& splits, Memory& shared,
                                             const Region& region) {
  using T = std::decay_t<decltype(*p.partial)>;
  __syncthreads();  // the block's part is written, and its tile was read
  if (threadIdx.x == 0) {
    __threadfence();  // what the block wrote comes before its ticket
    shared.last = atomicInc(p.tickets + tile, splits.count - 1) == splits.count - 1;
    __threadfence();  // what others wrote is read after the ticket
  }
  __syncthreads();
  const bool last = shared.last;
  __syncthreads();  // `last` was read: the sum lies in the same memory
  if (!last) return;
  using Result = std::decay_t<decltype(shared.result)>;
  const int64_t first = region.row * p.n + region.col;
  const PartialSums<T> sums{p.partial + first, p.n, p.m * p.n, int(splits.count), partial_aligned(p.n, p.tile_cols)};
  for_each_quad<T>(sums, region, StorePartial<T>{shared.result.value, Result::kLd, true});
  __syncthreads();
  p.epilogue.consume(shared.result, region);
  using Epilogue = std::decay_t<decltype(p.epilogue)>;
  if constexpr (kTakesRowSums<Epilogue>) {
    if (!p.row_sums.out || region.col != 0 || int(threadIdx.x) >= region.rows) return;
    double sum = 0;
    for (unsigned s = 0; s < splits.count; ++s) sum += p.row_sums.partial[s * p.m + region.row + threadIdx.x];
    p.epilogue.row_sum(region.row + threadIdx.x, T(sum));
  }
}

}  // namespace pygan::cuda
