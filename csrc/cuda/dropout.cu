// Dropout alone, for code that cannot fuse it into a layer. Backward is the same op on the gradient. A thread makes
// the mask of its run of elements from their Philox blocks: nothing but x is read, nothing but out written.
#include "../core/philox.h"
#include "backend.h"
#include "elements.h"

namespace pygan::cuda {
namespace {

template <class T>
struct DropoutMask {
  uint32_t threshold;
  T scale;
  uint64_t seed, offset;

  // values[j] *= mask of element first + j; first is a multiple of 4
  template <int N>
  __device__ void apply(T (&values)[N], int64_t first) const {
#pragma unroll
    for (int j = 0; j < N; j += 4) {
      const PhiloxBlock block = philox_block(seed, offset, uint64_t(first + j) / 4);
#pragma unroll
      for (int word = 0; word < 4; ++word) values[j + word] *= block.word[word] >= threshold ? scale : T(0);
    }
  }
};

template <class S>
__global__ void __launch_bounds__(kThreads)
    dropout_kernel(const S* x, int64_t n, bool vector, DropoutMask<Compute<S>> mask, S* out) {
  constexpr int N = kRun<S>;
  for (int64_t first = first_item() * N; first < n; first += item_stride() * N) {
    Compute<S> values[N];
    load_run(x + first, n - first, vector, values);
    mask.apply(values, first);
    store_run(values, n - first, vector, out + first);
  }
}

}  // namespace

void dropout_forward(const DropoutForward& op) {
  if (op.n == 0) return;
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    using T = Compute<S>;
    const Dropout& dropout = op.dropout;
    const DropoutMask<T> mask{dropout_threshold(dropout.p), T(1.0 / (1.0 - dropout.p)), dropout.seed, dropout.offset};
    launch(op.run, dropout_kernel<S>, grid_of(ceil_div(op.n, kRun<S>)), kThreads, 0, static_cast<const S*>(op.x), op.n,
           aligned(op.x, op.out), mask, static_cast<S*>(op.out));
  });
}

}  // namespace pygan::cuda
