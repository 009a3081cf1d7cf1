// Dropout alone, for code that cannot fuse it into a layer. Backward is the same op on the gradient.
#include "kernels.h"
#include "parallel.h"
#include "random_rows.h"

namespace pygan::cpu::PYGAN_ISA {

void dropout_forward(const DropoutForward& op) {
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    using T = Compute<S>;
    const S* x = static_cast<const S*>(op.x);
    S* out = static_cast<S*>(op.out);
    const DropoutMask<T> mask(op.dropout);
    parallel_chunks(op.n, op.run.threads, [&](int64_t begin, int64_t end) {
      constexpr int64_t kRun = 512;
      T values[kRun];
      for (int64_t i = begin; i < end; i += kRun) {
        const int64_t count = std::min(kRun, end - i);
        load_row(x + i, count, values);
        mask.apply(values, count, i);
        store_row(values, count, out + i);
      }
    });
  });
}

}  // namespace pygan::cpu::PYGAN_ISA
