// The minimax losses: both terms' values, or derivatives, in one launch.
//
// A total is deterministic, whatever the device: chunks of fixed size are each summed in a fixed tree, and the block
// that finishes last sums the chunks in a fixed tree too. Few logits are one block's work. Sums are in double.
#include "../core/gan_loss.h"

#include "backend.h"
#include "elements.h"
#include "ptx.h"

namespace pygan::cuda {
namespace {

template <class S>
struct Term {
  GanTerm term;
  bool vector;
  const S* logits;
  int64_t n;
  Compute<S> smoothing, scale;
  S* grad;
};

template <class S>
struct Terms {
  Term<S> at[2];  // without a second term, one of no logits
  int count;
};

template <class S>
__device__ __forceinline__ void add_values(const Term<S>& term, int64_t first, Compute<S> (&sums)[kRun<S>]) {
  Compute<S> logits[kRun<S>];
  load_run(term.logits + first, term.n - first, term.vector, logits);
#pragma unroll
  for (int j = 0; j < kRun<S>; ++j) sums[j] += gan_term_value(term.term, logits[j], term.smoothing);
}

template <class S>
__global__ void __launch_bounds__(kThreads) values_kernel(Terms<S> terms, bool vector, S* out) {
  constexpr int N = kRun<S>;
  const int64_t n = terms.at[0].n;
  for (int64_t first = first_item() * N; first < n; first += item_stride() * N) {
    Compute<S> sums[N] = {};
    add_values(terms.at[0], first, sums);
    if (terms.count > 1) add_values(terms.at[1], first, sums);
    store_run(sums, n - first, vector, out + first);
  }
}

constexpr int kSumThreads = 512;
constexpr int kWarp = 32;
constexpr int64_t kChunk = 4096;
constexpr int64_t kFewChunks = 4;  // up to here one block is faster than clearing the counter of finished blocks

struct SumStorage {
  double warps[kSumThreads / kWarp];
  double chunks[kFewChunks];
  bool last;
};

__device__ __forceinline__ double warp_sum(double value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value += __shfl_down_sync(0xffffffff, value, distance);
  return value;
}

// The sum of every thread's value, for thread 0.
__device__ __forceinline__ double block_sum(double value, SumStorage& shared) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  value = warp_sum(value);
  if (lane == 0) shared.warps[warp] = value;
  __syncthreads();  // every warp's sum is there
  if (warp == 0) value = warp_sum(lane < kSumThreads / kWarp ? shared.warps[lane] : 0.0);
  __syncthreads();  // the sums were read: the next call may overwrite them
  return value;
}

// The thread's share of a chunk.
template <class S>
__device__ __forceinline__ double sum_of_values(const Term<S>& term, int64_t chunk) {
  constexpr int N = kRun<S>;
  const int64_t begin = chunk * kChunk, end = term.n - begin < kChunk ? term.n : begin + kChunk;
  double sum = 0;
  for (int64_t first = begin + threadIdx.x * N; first < end; first += kSumThreads * N) {
    Compute<S> logits[N];
    load_run(term.logits + first, end - first, term.vector, logits);
#pragma unroll
    for (int j = 0; j < N; ++j)
      if (first + j < end) sum += double(gan_term_value(term.term, logits[j], term.smoothing));
  }
  return sum;
}

__device__ __forceinline__ double sum_of_chunks(const double* chunks, int64_t count, SumStorage& shared) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kSumThreads) sum += chunks[i];
  return block_sum(sum, shared);
}

// Whether all other blocks have written their sums, which this one may then read.
__device__ __forceinline__ bool last_to_finish(unsigned* finished, SumStorage& shared) {
  if (threadIdx.x == 0) {
    __threadfence();  // the sums that this thread wrote come before its ticket
    shared.last = atomicAdd(finished, 1u) == gridDim.x - 1;
    __threadfence();  // the sums of others are read after the ticket
  }
  __syncthreads();  // `last` is there, and thread 0's fence is behind every thread
  return shared.last;
}

// `chunks` has room for the sum of each chunk of both terms; null for a single block.
template <class S>
__global__ void __launch_bounds__(kSumThreads)
    total_kernel(Terms<S> terms, bool mean, double* chunks, unsigned* finished, S* out) {
  SumStorage& shared = shared_storage<SumStorage>();
  double* const sums = chunks ? chunks : shared.chunks;
  const int64_t first_count = ceil_div(terms.at[0].n, kChunk), second_count = ceil_div(terms.at[1].n, kChunk);
  for (int64_t i = blockIdx.x; i < first_count + second_count; i += gridDim.x) {
    const bool second = i >= first_count;
    const double share = sum_of_values(terms.at[second], second ? i - first_count : i);
    const double sum = block_sum(share, shared);
    if (threadIdx.x == 0) sums[i] = sum;
  }
  if (!chunks)
    __syncthreads();  // the sums are there
  else if (!last_to_finish(finished, shared))
    return;
  const double first = sum_of_chunks(sums, first_count, shared);
  const double second = sum_of_chunks(sums + first_count, second_count, shared);
  if (threadIdx.x != 0) return;
  double total = mean ? first / double(terms.at[0].n) : first;
  if (terms.count > 1) total += mean ? second / double(terms.at[1].n) : second;
  narrow(Compute<S>(total), out);
}

template <class S>
__device__ __forceinline__ void write_gradient(const Term<S>& term, int64_t first, const S* upstream, bool each) {
  using T = Compute<S>;
  constexpr int N = kRun<S>;
  const int64_t left = term.n - first;
  T values[N], factors[N];
  load_run(term.logits + first, left, term.vector, values);
  if (each) {
    load_run(upstream + first, left, term.vector, factors);
  } else {
    const T common = widen(*upstream);
#pragma unroll
    for (int j = 0; j < N; ++j) factors[j] = common;
  }
#pragma unroll
  for (int j = 0; j < N; ++j)
    values[j] = term.scale * factors[j] * gan_term_derivative(term.term, values[j], term.smoothing);
  store_run(values, left, term.vector, term.grad + first);
}

// Runs of the first term, then those of the second; upstream has a value for each logit, or one for all.
template <class S>
__global__ void __launch_bounds__(kThreads) backward_kernel(Terms<S> terms, const S* upstream, bool each) {
  const int64_t first_count = ceil_div(terms.at[0].n, kRun<S>), second_count = ceil_div(terms.at[1].n, kRun<S>);
  for (int64_t i = first_item(); i < first_count + second_count; i += item_stride()) {
    const bool second = i >= first_count;
    write_gradient(terms.at[second], (second ? i - first_count : i) * kRun<S>, upstream, each);
  }
}

template <class S, class Op>
Terms<S> terms_of(const Op& op) {
  const auto term_of = [&](const GanLossTerm& term) {
    using T = Compute<S>;
    return Term<S>{term.term,
                   aligned(term.logits),
                   static_cast<const S*>(term.logits),
                   term.n,
                   T(term.smoothing),
                   op.reduction == Reduction::mean ? T(1.0 / double(term.n)) : T(1),
                   static_cast<S*>(term.grad)};
  };
  Terms<S> terms{};
  terms.count = op.count;
  for (int i = 0; i < op.count; ++i) terms.at[i] = term_of(op.terms[i]);
  return terms;
}

template <class S>
void write_total(const GanLossForward& op, const Terms<S>& terms) {
  const int64_t count = ceil_div(terms.at[0].n, kChunk) + ceil_div(terms.at[1].n, kChunk);
  double* chunks = nullptr;
  unsigned* finished = nullptr;
  int64_t blocks = 1;
  if (count > kFewChunks) {
    constexpr int kBlocksOfMultiprocessor = 2048 / kSumThreads;
    const int64_t bound = int64_t(device_limits().multiprocessors) * kBlocksOfMultiprocessor;
    blocks = count < bound ? count : bound;
    chunks = scratch<double>(op.run, size_t(count));
    finished = scratch<unsigned>(op.run, 1);
    check(cudaMemsetAsync(finished, 0, sizeof *finished, static_cast<cudaStream_t>(op.run.stream)), "cudaMemsetAsync");
  }
  launch(op.run, total_kernel<S>, unsigned(blocks), kSumThreads, sizeof(SumStorage), terms,
         op.reduction == Reduction::mean, chunks, finished, static_cast<S*>(op.out));
}

}  // namespace

void gan_loss_forward(const GanLossForward& op) {
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    const Terms<S> terms = terms_of<S>(op);
    if (op.reduction != Reduction::none) return write_total(op, terms);
    if (terms.at[0].n == 0) return;
    launch(op.run, values_kernel<S>, grid_of(ceil_div(terms.at[0].n, kRun<S>)), kThreads, 0, terms, aligned(op.out),
           static_cast<S*>(op.out));
  });
}

void gan_loss_backward(const GanLossBackward& op) {
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    Terms<S> terms = terms_of<S>(op);
    const bool each = op.reduction == Reduction::none;
    for (Term<S>& term : terms.at) term.vector = aligned(term.logits, term.grad, each ? op.upstream : nullptr);
    const int64_t runs = ceil_div(terms.at[0].n, kRun<S>) + ceil_div(terms.at[1].n, kRun<S>);
    if (runs == 0) return;
    launch(op.run, backward_kernel<S>, grid_of(runs), kThreads, 0, terms, static_cast<const S*>(op.upstream), each);
  });
}

}  // namespace pygan::cuda
