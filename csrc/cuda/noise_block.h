// The noise of one Philox block.
#pragma once

#include <cuda_runtime.h>

#include "../core/ops.h"
#include "../core/philox.h"

namespace pygan::cuda {

__device__ __forceinline__ void noise_of_block(NoiseKind kind, const PhiloxBlock& block, float* values) {
  if (kind == NoiseKind::uniform) {
#pragma unroll
    for (int word = 0; word < 4; ++word) values[word] = uniform_from_word(block.word[word]);
  } else {
#pragma unroll
    for (int word = 0; word < 4; word += 2)
      normal_from_words(block.word[word], block.word[word + 1], values + word, values + word + 1);
  }
}

}  // namespace pygan::cuda
