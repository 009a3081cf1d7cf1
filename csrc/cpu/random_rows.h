// Runs of counter-based random numbers, many Philox blocks side by side so that they become SIMD code.
#pragma once

#include <algorithm>

#include "../core/ops.h"
#include "../core/philox.h"
#include "simd.h"

namespace pygan::cpu::PYGAN_ISA {

// Counter words live in 64-bit lanes: a multiplication then leaves both halves of its product in place, and what
// lies above the low 32 bits of a word never matters.
typedef uint64_t Words __attribute__((vector_size(kVectorBytes)));

constexpr int kBlockLanes = kVectorBytes / 8;
constexpr int kBlockGroups = 2;  // side by side, to hide the latency of ten dependent rounds
constexpr int kBlocksAtOnce = kBlockLanes * kBlockGroups;
constexpr int kWordsAtOnce = 4 * kBlocksAtOnce;

inline Words multiply_low_words(Words a, uint32_t b) {
#if defined(__AVX512F__)
  return (Words)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(int64_t(b)));
#elif defined(__AVX2__)
  return (Words)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(int64_t(b)));
#else
  return (a & 0xffffffffu) * uint64_t(b);
#endif
}

// words[4 l + w] = word w of block first + l
inline void philox_words(uint64_t seed, uint64_t offset, uint64_t first, uint32_t* words) {
  Words c0[kBlockGroups], c1[kBlockGroups], c2[kBlockGroups], c3[kBlockGroups];
  for (int g = 0; g < kBlockGroups; ++g) {
    Words block{};
    for (int l = 0; l < kBlockLanes; ++l) block[l] = first + uint64_t(g * kBlockLanes + l);
    c0[g] = block;
    c1[g] = block >> 32;
    c2[g] = Words{} + offset;
    c3[g] = c2[g] >> 32;
  }
  uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    for (int g = 0; g < kBlockGroups; ++g) {
      const Words product0 = multiply_low_words(c0[g], kPhiloxMultiplier0);
      const Words product1 = multiply_low_words(c2[g], kPhiloxMultiplier1);
      c0[g] = (product1 >> 32) ^ c1[g] ^ uint64_t(key0);
      c2[g] = (product0 >> 32) ^ c3[g] ^ uint64_t(key1);
      c1[g] = product1;
      c3[g] = product0;
    }
    key0 += kPhiloxWeyl0, key1 += kPhiloxWeyl1;
  }
  for (int g = 0; g < kBlockGroups; ++g) {
    const Words pair0 = (c0[g] & 0xffffffffu) | (c1[g] << 32), pair1 = (c2[g] & 0xffffffffu) | (c3[g] << 32);
    Words low_order{}, high_order{};  // interleave: block 0's two pairs, block 1's, ...
    for (int l = 0; l < kBlockLanes; ++l) {
      low_order[l] = uint64_t(l / 2 + (l % 2) * kBlockLanes);
      high_order[l] = uint64_t(l / 2 + kBlockLanes / 2 + (l % 2) * kBlockLanes);
    }
    const Words low = __builtin_shuffle(pair0, pair1, low_order), high = __builtin_shuffle(pair0, pair1, high_order);
    memcpy(words + g * 4 * kBlockLanes, &low, sizeof low);
    memcpy(words + g * 4 * kBlockLanes + 2 * kBlockLanes, &high, sizeof high);
  }
}

// out[i] = noise of element first + i
template <class T>
inline void noise_run(NoiseKind kind, uint64_t seed, uint64_t offset, int64_t first, int64_t n, T* out) {
  uint32_t words[kWordsAtOnce];
  float values[kWordsAtOnce];
  for (int64_t i = 0; i < n;) {
    const int64_t element = first + i;
    const int lead = int(element % 4);
    philox_words(seed, offset, uint64_t(element / 4), words);
    if (kind == NoiseKind::uniform) {
#pragma omp simd
      for (int j = 0; j < kWordsAtOnce; ++j) values[j] = uniform_from_word(words[j]);
    } else {
      float even[kWordsAtOnce / 2], odd[kWordsAtOnce / 2];
#pragma omp simd
      for (int j = 0; j < kWordsAtOnce / 2; ++j) normal_from_words(words[2 * j], words[2 * j + 1], even + j, odd + j);
      for (int j = 0; j < kWordsAtOnce / 2; ++j) values[2 * j] = even[j], values[2 * j + 1] = odd[j];
    }
    const int count = int(std::min<int64_t>(kWordsAtOnce - lead, n - i));
    for (int j = 0; j < count; ++j) out[i + j] = T(values[lead + j]);
    i += count;
  }
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
    const uint32_t threshold = threshold_;
    const T scale = scale_;
    for (int64_t i = 0; i < n;) {
      const int64_t element = first + i;
      const int lead = int(element % 4);
      philox_words(seed_, offset_, uint64_t(element / 4), words);
      const int count = int(std::min<int64_t>(kWordsAtOnce - lead, n - i));
      T* run = values + i;
      const uint32_t* word = words + lead;
#pragma omp simd
      for (int j = 0; j < count; ++j) run[j] *= word[j] >= threshold ? scale : T(0);
      i += count;
    }
  }

 private:
  uint32_t threshold_;
  T scale_;
  uint64_t seed_, offset_;
};

}  // namespace pygan::cpu::PYGAN_ISA
