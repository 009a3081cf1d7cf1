// Runs of counter-based random numbers, many Philox blocks side by side so that they become SIMD code.
#pragma once

#include <algorithm>

#include "../core/philox.h"
#include "simd.h"

namespace pygan::cpu::PYGAN_ISA {

constexpr int kBlocksAtOnce = 16;
constexpr int kWordsAtOnce = 4 * kBlocksAtOnce;

// words[4 l + w] = word w of block first + l
inline void philox_words(uint64_t seed, uint64_t offset, uint64_t first, uint32_t* words) {
  uint32_t c0[kBlocksAtOnce], c1[kBlocksAtOnce], c2[kBlocksAtOnce], c3[kBlocksAtOnce];
  for (int l = 0; l < kBlocksAtOnce; ++l) {
    const uint64_t block = first + uint64_t(l);
    c0[l] = uint32_t(block), c1[l] = uint32_t(block >> 32), c2[l] = uint32_t(offset), c3[l] = uint32_t(offset >> 32);
  }
  uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    for (int l = 0; l < kBlocksAtOnce; ++l) {
      const uint64_t product0 = uint64_t(kPhiloxMultiplier0) * c0[l], product1 = uint64_t(kPhiloxMultiplier1) * c2[l];
      c0[l] = uint32_t(product1 >> 32) ^ c1[l] ^ key0;
      c2[l] = uint32_t(product0 >> 32) ^ c3[l] ^ key1;
      c1[l] = uint32_t(product1);
      c3[l] = uint32_t(product0);
    }
    key0 += kPhiloxWeyl0, key1 += kPhiloxWeyl1;
  }
  for (int l = 0; l < kBlocksAtOnce; ++l)
    words[4 * l] = c0[l], words[4 * l + 1] = c1[l], words[4 * l + 2] = c2[l], words[4 * l + 3] = c3[l];
}

// The mask of dropout(p): an element is a function of its linear index alone.
template <class T>
class DropoutMask {
 public:
  explicit DropoutMask(const Dropout& dropout)
      : threshold_(dropout_threshold(dropout.p)),
        scale_(T(1.0 / (1.0 - dropout.p))),
        seed_(dropout.seed),
        offset_(dropout.offset) {}

  // values[i] *= mask of element first + i
  void apply(T* values, int64_t n, int64_t first) const {
    uint32_t words[kWordsAtOnce];
    for (int64_t i = 0; i < n;) {
      const int64_t element = first + i;
      const int lead = int(element % 4);
      philox_words(seed_, offset_, uint64_t(element / 4), words);
      const int count = int(std::min<int64_t>(kWordsAtOnce - lead, n - i));
      for (int j = 0; j < count; ++j) values[i + j] *= words[lead + j] >= threshold_ ? scale_ : T(0);
      i += count;
    }
  }

 private:
  uint32_t threshold_;
  T scale_;
  uint64_t seed_, offset_;
};

}  // namespace pygan::cpu::PYGAN_ISA
