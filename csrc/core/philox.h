// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//
// A number is a pure function of (seed, offset, element): key = seed, counter = (element / 4, offset), and the
// element takes word element % 4. So it is the same on every device, at any thread, block or rank count, and
// backward recomputes a mask in place of storing it. `offset` packs (stream, step): see make_offset.
#pragma once

#include <cstdint>

#include "host_device.h"
#include "math.h"

namespace pygan {

struct PhiloxBlock {
  uint32_t word[4];
};

constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u;
constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u;
constexpr uint32_t kPhiloxWeyl1 = 0xBB67AE85u;
constexpr int kPhiloxRounds = 10;

PYGAN_HD PhiloxBlock philox4x32_10(PhiloxBlock counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t product0 = uint64_t(kPhiloxMultiplier0) * counter.word[0];
    const uint64_t product1 = uint64_t(kPhiloxMultiplier1) * counter.word[2];
    counter = {{uint32_t(product1 >> 32) ^ counter.word[1] ^ key0, uint32_t(product1),
                uint32_t(product0 >> 32) ^ counter.word[3] ^ key1, uint32_t(product0)}};
    key0 += kPhiloxWeyl0;
    key1 += kPhiloxWeyl1;
  }
  return counter;
}

PYGAN_HD PhiloxBlock philox_block(uint64_t seed, uint64_t offset, uint64_t block) {
  return philox4x32_10({{uint32_t(block), uint32_t(block >> 32), uint32_t(offset), uint32_t(offset >> 32)}},
                       uint32_t(seed), uint32_t(seed >> 32));
}

// Streams keep uses of one seed apart; pygan/random.py has the same table.
constexpr int kStreamShift = 48;
PYGAN_HD uint64_t make_offset(uint64_t stream, uint64_t step) { return (stream << kStreamShift) + step; }

// Uniform on +-sqrt(3) (unit variance) from an odd 25-bit integer: one rounding, exactly symmetric, never 0.
PYGAN_HD float uniform_from_word(uint32_t word) {
  const int32_t odd = int32_t((word >> 8) * 2u) + 1 - (1 << 24);
  return static_cast<float>(odd) * 1.0323827e-07f;  // sqrt(3) * 2^-24
}

// Two standard normals from two words (Box-Muller).
PYGAN_HD void normal_from_words(uint32_t a, uint32_t b, float* first, float* second) {
  const float u = static_cast<float>(int32_t(a >> 8) + 1) * 5.9604645e-08f;  // (0, 1]
  const float turn = static_cast<float>(int32_t(b >> 8)) * 5.9604645e-08f;   // [0, 1)
  const float radius = sqrtf(-2.0f * logarithm(u));
  float cosine, sine;
  cos_sin_turn(turn, &cosine, &sine);
  *first = radius * cosine;
  *second = radius * sine;
}

// An element is kept when its word reaches the threshold, kept values are scaled by 1 / (1 - p).
inline uint32_t dropout_threshold(double p) {
  const double scaled = p * 4294967296.0;
  const uint64_t whole = static_cast<uint64_t>(scaled);
  const uint64_t ceiling = whole + (static_cast<double>(whole) < scaled ? 1 : 0);
  return ceiling > 0xffffffffull ? 0xffffffffu : static_cast<uint32_t>(ceiling);
}

// A keyed permutation of [0, n): an alternating Feistel network on ceil(log2 n) bits, walked until it lands
// inside (fewer than two steps on average). No table: sampling without replacement at any population.
class Permutation {
 public:
  PYGAN_HD Permutation(uint64_t population, uint64_t seed, uint64_t offset, uint32_t epoch) : population_(population) {
    int bits = 6;  // below that, halves of a bit or two would leave some orders out
    while (bits < 62 && (uint64_t(1) << bits) < population) ++bits;
    low_bits_ = bits / 2;
    low_mask_ = uint32_t((uint64_t(1) << low_bits_) - 1);
    high_mask_ = uint32_t((uint64_t(1) << (bits - low_bits_)) - 1);
    for (int i = 0; i < kRounds; i += 4) {
      const PhiloxBlock block = philox_block(seed, offset, (uint64_t(epoch) << 32) + uint64_t(i / 4));
      for (int j = 0; j < 4; ++j) key_[i + j] = block.word[j];
    }
  }

  PYGAN_HD uint64_t operator()(uint64_t index) const {
    if (population_ < 2) return 0;
    do index = shuffle_once(index);
    while (index >= population_);
    return index;
  }

  // Places first, first + 1, ... of the order, at most kSideBySide of them: all at once.
  static constexpr int kSideBySide = 64;
  void run(uint64_t first, int count, int64_t* out) const {
    uint32_t low[kSideBySide], high[kSideBySide];
    for (int i = 0; i < kSideBySide; ++i) {
      low[i] = uint32_t(first + uint64_t(i)) & low_mask_;
      high[i] = uint32_t((first + uint64_t(i)) >> low_bits_);
    }
    shuffle(low, high);
    for (int i = 0; i < count; ++i) {
      uint64_t index = (uint64_t(high[i]) << low_bits_) | low[i];
      while (index >= population_) index = shuffle_once(index);
      out[i] = population_ < 2 ? 0 : int64_t(index);
    }
  }

 private:
  static constexpr int kRounds = 8;

  PYGAN_HD static uint32_t mix(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    return x ^ (x >> 16);
  }

  void shuffle(uint32_t (&low)[kSideBySide], uint32_t (&high)[kSideBySide]) const {
    for (int round = 0; round < kRounds; round += 2) {
      const uint32_t first = key_[round], second = key_[round + 1], low_mask = low_mask_, high_mask = high_mask_;
      for (int i = 0; i < kSideBySide; ++i) {
        high[i] ^= mix(low[i] ^ first) & high_mask;
        low[i] ^= mix(high[i] ^ second) & low_mask;
      }
    }
  }

  PYGAN_HD uint64_t shuffle_once(uint64_t index) const {
    uint32_t low = uint32_t(index) & low_mask_;
    uint32_t high = uint32_t(index >> low_bits_);
    for (int i = 0; i < kRounds; i += 2) {
      high ^= mix(low ^ key_[i]) & high_mask_;
      low ^= mix(high ^ key_[i + 1]) & low_mask_;
    }
    return (uint64_t(high) << low_bits_) | low;
  }

  uint64_t population_;
  int low_bits_;
  uint32_t low_mask_, high_mask_;
  uint32_t key_[kRounds];
};

}  // namespace pygan
