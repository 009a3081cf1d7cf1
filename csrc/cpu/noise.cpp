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
      T row[kWordsAtOnce];
      for (int64_t i = begin; i < end; i += kWordsAtOnce) {
        const int64_t count = std::min<int64_t>(kWordsAtOnce, end - i);
        noise_run(op.kind, op.seed, op.offset, i, count, row);
        store_row(row, count, out + i);
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
    for (int64_t i = 0; i < count; i += Permutation::kSideBySide)
      permutation.run(uint64_t(first + i), int(std::min<int64_t>(Permutation::kSideBySide, count - i)),
                      op.out + done + i);
    done += count;
  }
}

}  // namespace pygan::cpu::PYGAN_ISA
