// Noise and minibatch order from counters.
#include "kernels.h"
#include "parallel.h"
#include "random_rows.h"

namespace pygan::cpu::PYGAN_ISA {

void noise(const Noise& op) {
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    using T = Compute<S>;
    S* out = static_cast<S*>(op.out);
    parallel_chunks(op.n, op.run.threads, [&](int64_t begin, int64_t end) {
      uint32_t words[kWordsAtOnce];
      float values[kWordsAtOnce];
      T row[kWordsAtOnce];
      for (int64_t i = begin; i < end; i += kWordsAtOnce) {
        philox_words(op.seed, op.offset, uint64_t(i / 4), words);
        if (op.kind == NoiseKind::uniform) {
#pragma omp simd
          for (int j = 0; j < kWordsAtOnce; ++j) values[j] = uniform_from_word(words[j]);
        } else {
          float first[kWordsAtOnce / 2], second[kWordsAtOnce / 2];
#pragma omp simd
          for (int j = 0; j < kWordsAtOnce / 2; ++j)
            normal_from_words(words[2 * j], words[2 * j + 1], first + j, second + j);
          for (int j = 0; j < kWordsAtOnce / 2; ++j) values[2 * j] = first[j], values[2 * j + 1] = second[j];
        }
        for (int j = 0; j < kWordsAtOnce; ++j) row[j] = T(values[j]);
        store_row(row, std::min<int64_t>(kWordsAtOnce, end - i), out + i);
      }
    });
  });
}

void minibatch_indices(const MinibatchIndices& op) {
  int64_t done = 0;
  while (done < op.count) {
    const int64_t position = op.start + done;
    const int64_t epoch = position / op.population, first = position % op.population;
    const int64_t count = std::min(op.count - done, op.population - first);
    const Permutation permutation(uint64_t(op.population), op.seed, op.offset, uint32_t(epoch));
    for (int64_t i = 0; i < count; ++i) op.out[done + i] = int64_t(permutation(uint64_t(first + i)));
    done += count;
  }
}

}  // namespace pygan::cpu::PYGAN_ISA
