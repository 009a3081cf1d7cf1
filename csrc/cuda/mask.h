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
