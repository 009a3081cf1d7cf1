// One pass over a network's parameters: gradient in, state and parameter updated in place. One launch updates up to
// kSlices tensors, whose addresses travel in the kernel's parameters; a block updates one chunk of one of them.
#include "../core/optimizer.h"

#include "backend.h"
#include "elements.h"

namespace pygan::cuda {
namespace {

constexpr int kSlices = 48;  // parameters of a kernel end at 4 KB

struct Batch {
  ParamSlice slices[kSlices];
  unsigned chunk_end[kSlices];  // chunks of this slice and of those before it
  int count;
};

// A thread's elements fill a vector of the wider type: a longer run would leave gaps between the lanes of a load.
template <class S, class State>
constexpr int kUpdateRun = kRun<S> < kRun<State> ? kRun<S> : kRun<State>;
template <class S, class State>
constexpr int64_t kChunk = int64_t(kThreads) * kUpdateRun<S, State>;

// The first slice that ends beyond the chunk.
__device__ __forceinline__ int slice_of(const Batch& batch, unsigned chunk) {
  int low = 0, high = batch.count - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (chunk < batch.chunk_end[middle])
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

// rule(param, grad, state1[, state2]) over every element; half types are updated in fp32.
template <class S, class State, bool kTwoStates, class Rule>
__global__ void __launch_bounds__(kThreads) update_kernel(Batch batch, Rule rule) {
  constexpr int N = kUpdateRun<S, State>;
  const int index = slice_of(batch, blockIdx.x);
  const ParamSlice slice = batch.slices[index];
  const unsigned chunk = blockIdx.x - (index > 0 ? batch.chunk_end[index - 1] : 0);
  const int64_t first = chunk * kChunk<S, State> + threadIdx.x * N, left = slice.n - first;
  if (left <= 0) return;

  S* const param = static_cast<S*>(slice.param) + first;
  const S* const grad = static_cast<const S*>(slice.grad) + first;
  State* const state1 = static_cast<State*>(slice.state1) + first;
  State* const state2 = kTwoStates ? static_cast<State*>(slice.state2) + first : nullptr;
  const bool vector = aligned(slice.param, slice.grad, slice.state1, slice.state2);

  Compute<S> p[N], g[N], a[N], b[N];
  load_run(param, left, vector, p);
  load_run(grad, left, vector, g);
  load_run(state1, left, vector, a);
  if constexpr (kTwoStates) load_run(state2, left, vector, b);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    if constexpr (kTwoStates)
      rule(p + j, g[j], a + j, b + j);
    else
      rule(p + j, g[j], a + j);
  }
  store_run(p, left, vector, param);
  store_run(a, left, vector, state1);
  if constexpr (kTwoStates) store_run(b, left, vector, state2);
}

template <class S, class State, bool kTwoStates, class Op, class Rule>
void update(const Op& op, const Rule& rule) {
  Batch batch;
  for (int64_t next = 0; next < op.count;) {
    unsigned chunks = 0;
    for (batch.count = 0; batch.count < kSlices && next < op.count; ++next, ++batch.count) {
      chunks += unsigned(ceil_div(op.slices[next].n, kChunk<S, State>));
      batch.slices[batch.count] = op.slices[next];
      batch.chunk_end[batch.count] = chunks;
    }
    if (chunks > 0) launch(op.run, update_kernel<S, State, kTwoStates, Rule>, chunks, kThreads, 0, batch, rule);
  }
}

template <bool kTwoStates, class Op>
void dispatch(const Op& op) {
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    using T = Compute<S>;
    const auto rule = rule_of<T>(op);
    if (op.state_dtype == op.dtype)
      update<S, S, kTwoStates>(op, rule);
    else
      update<S, T, kTwoStates>(op, rule);
  });
}

}  // namespace

void momentum_update(const MomentumUpdate& op) { dispatch<false>(op); }
void adam_update(const AdamUpdate& op) { dispatch<true>(op); }

}  // namespace pygan::cuda
