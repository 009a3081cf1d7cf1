// Dropout alone, for code that cannot fuse it into a layer. Backward is the same op on the gradient. A thread makes
// the mask of its run of elements from their Philox blocks: nothing but x is read, nothing but out written.
#include "backend.h"
#include "elements.h"
#include "mask.h"

namespace pygan::cuda {
namespace {

template <class S>
__global__ void __launch_bounds__(kThreads)
    dropout_kernel(const S* x, int64_t n, bool vector, Mask<Compute<S>> mask, S* out) {
  constexpr int N = kRandomRun<S>;
  for (int64_t first = first_item() * N; first < n; first += item_stride() * N) {
    Compute<S> values[N];
    load_run(x + first, n - first, vector, values);
    mask.apply_blocks(values, uint64_t(first));
    store_run(values, n - first, vector, out + first);
  }
}

}  // namespace

void dropout_forward(const DropoutForward& op) {
  if (op.n == 0) return;
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    launch(op.run, dropout_kernel<S>, grid_of(ceil_div(op.n, kRandomRun<S>)), kThreads, 0, static_cast<const S*>(op.x),
           op.n, aligned(op.x, op.out), Mask<Compute<S>>(op.dropout), static_cast<S*>(op.out));
  });
}

}  // namespace pygan::cuda
