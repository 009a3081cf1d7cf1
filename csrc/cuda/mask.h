// Dropout's mask on the device.
#pragma once

#include <cuda_runtime.h>

#include "../core/philox.h"
#include "types.h"

namespace pygan::cuda {

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

  // values[i] *= mask of element first + i, for first a multiple of 4
  template <int kCount>
  __device__ void apply_blocks(T (&values)[kCount], uint64_t first) const {
    static_assert(kCount % 4 == 0);
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const PhiloxBlock block = philox_block(seed, offset, first / 4 + uint64_t(i / 4));
#pragma unroll
      for (int word = 0; word < 4; ++word) values[i + word] *= block.word[word] >= threshold ? scale : T(0);
    }
  }

  // values[i] *= mask of element first + i
  template <int kCount>
  __device__ void apply(T (&values)[kCount], uint64_t first) const {
    constexpr int kBlocks = (kCount + 3 + 3) / 4;  // a run may begin at any word of its first block
    uint32_t words[4 * kBlocks];
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      const PhiloxBlock block = philox_block(seed, offset, first / 4 + uint64_t(b));
#pragma unroll
      for (int word = 0; word < 4; ++word) words[4 * b + word] = block.word[word];
    }
    const bool by_two = first & 2, by_one = first & 1;
#pragma unroll
    for (int i = 0; i + 2 < 4 * kBlocks; ++i) words[i] = by_two ? words[i + 2] : words[i];
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] *= (by_one ? words[i + 1] : words[i]) >= threshold ? scale : T(0);
  }
};

}  // namespace pygan::cuda
