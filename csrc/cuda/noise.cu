// Noise and minibatch order from counters: every thread computes its own numbers, nothing is read.
#include "../core/philox.h"
#include "backend.h"
#include "elements.h"
#include "noise_block.h"

namespace pygan::cuda {
namespace {

template <class S>
__global__ void __launch_bounds__(kThreads)
    noise_kernel(NoiseKind kind, uint64_t seed, uint64_t offset, int64_t n, bool vector, S* out) {
  constexpr int N = kRandomRun<S>;
  for (int64_t first = first_item() * N; first < n; first += item_stride() * N) {
    float values[N];
#pragma unroll
    for (int j = 0; j < N; j += 4)
      noise_of_block(kind, philox_block(seed, offset, uint64_t(first + j) / 4), values + j);
    Compute<S> run[N];
#pragma unroll
    for (int j = 0; j < N; ++j) run[j] = Compute<S>(values[j]);
    store_run(run, n - first, vector, out + first);
  }
}

__global__ void __launch_bounds__(kThreads)
    minibatch_kernel(uint64_t population, uint64_t start, int64_t count, uint64_t seed, uint64_t offset, int64_t* out) {
  for (int64_t i = first_item(); i < count; i += item_stride()) {
    const uint64_t position = start + uint64_t(i);
    const uint64_t epoch = position / population;
    const Permutation permutation(population, seed, offset, uint32_t(epoch));
    out[i] = int64_t(permutation(position - epoch * population));
  }
}

}  // namespace

void noise(const Noise& op) {
  if (op.n == 0) return;
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    launch(op.run, noise_kernel<S>, grid_of(ceil_div(op.n, kRandomRun<S>)), kThreads, 0, op.kind, op.seed, op.offset,
           op.n, aligned(op.out), static_cast<S*>(op.out));
  });
}

void minibatch_indices(const MinibatchIndices& op) {
  if (op.count == 0) return;
  launch(op.run, minibatch_kernel, grid_of(op.count), kThreads, 0, op.population, op.start, op.count, op.seed,
         op.offset, op.out);
}

}  // namespace pygan::cuda
