// The losses: both terms' values, or derivatives, in one launch.
//
// A total is deterministic, whatever the device: chunks of fixed size are each summed in a fixed tree, and the block
// that finishes last sums the chunks in a fixed tree too. Few logits are one block's work. Sums are in double.
#include "../core/gan_loss.h"

#include <algorithm>

#include "backend.h"
#include "block_sum.h"
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
  const S* targets;
};

constexpr int kTerms = 2;

// Loops over them are unrolled: an index that is no constant would copy the parameters to local memory.
template <class S>
struct Terms {
  Term<S> at[kTerms];
  int count;
};

// The parameter of the term at each logit of a run: its target, or the one of all.
template <class S, int N>
__device__ __forceinline__ void load_parameters(const Term<S>& term, int64_t first, int64_t left,
                                                Compute<S> (&parameters)[N]) {
  if (term.targets) return load_run(term.targets + first, left, term.vector, parameters);
#pragma unroll
  for (int j = 0; j < N; ++j) parameters[j] = term.smoothing;
}

template <class S>
__global__ void __launch_bounds__(kThreads) values_kernel(Terms<S> terms, bool vector, S* out) {
  constexpr int N = kRun<S>;
  const int64_t n = terms.at[0].n;
  for (int64_t first = first_item() * N; first < n; first += item_stride() * N) {
    Compute<S> sums[N] = {};
#pragma unroll
    for (int i = 0; i < kTerms; ++i) {
      if (i >= terms.count) break;
      const Term<S>& term = terms.at[i];
      Compute<S> logits[N], parameters[N];
      load_run(term.logits + first, n - first, term.vector, logits);
      load_parameters(term, first, n - first, parameters);
#pragma unroll
      for (int j = 0; j < N; ++j) sums[j] += gan_term_value(term.term, logits[j], parameters[j]);
    }
    store_run(sums, n - first, vector, out + first);
  }
}

constexpr int kSumThreads = 512;
constexpr int64_t kChunk = 4096;
constexpr int64_t kFewChunks = 4;  // up to here one block is faster than clearing the counter of finished blocks

PYGAN_HD int64_t chunks_of(int64_t n) { return ceil_div(n, kChunk); }

struct SumStorage {
  double warps[kSumThreads / kWarp];
  double chunks[kFewChunks];
  bool last;
};

// The thread's share of a chunk.
template <class S>
__device__ __forceinline__ double sum_of_values(const Term<S>& term, int64_t chunk) {
  constexpr int N = kRun<S>;
  const int64_t begin = chunk * kChunk, end = term.n - begin < kChunk ? term.n : begin + kChunk;
  double sum = 0;
  for (int64_t first = begin + threadIdx.x * N; first < end; first += kSumThreads * N) {
    Compute<S> logits[N], parameters[N];
    load_run(term.logits + first, end - first, term.vector, logits);
    load_parameters(term, first, end - first, parameters);
#pragma unroll
    for (int j = 0; j < N; ++j)
      if (first + j < end) sum += double(gan_term_value(term.term, logits[j], parameters[j]));
  }
  return sum;
}

// For thread 0; few chunks are not worth the barriers of a tree.
__device__ __forceinline__ double sum_of_chunks(const double* chunks, int64_t count, SumStorage& shared) {
  const bool few = count <= kFewChunks;
  double sum = 0;
  for (int64_t i = few ? 0 : threadIdx.x; i < count; i += few ? 1 : kSumThreads) sum += chunks[i];
  return few ? sum : block_sum(sum, shared.warps);
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

// `chunks` has room for the sum of each chunk, those of the first term before those of the second; null for a single
// block, which keeps them to itself.
template <class S>
__global__ void __launch_bounds__(kSumThreads)
    total_kernel(Terms<S> terms, bool mean, double* chunks, unsigned* finished, S* out) {
  SumStorage& shared = shared_storage<SumStorage>();
  double* const sums = chunks ? chunks : shared.chunks;
  double* next = sums;
#pragma unroll
  for (int i = 0; i < kTerms; ++i) {
    if (i >= terms.count) break;
    const int64_t count = chunks_of(terms.at[i].n);
    for (int64_t chunk = blockIdx.x; chunk < count; chunk += gridDim.x) {
      const double sum = block_sum(sum_of_values(terms.at[i], chunk), shared.warps);
      if (threadIdx.x == 0) next[chunk] = sum;
    }
    next += count;
  }
  // A single block's thread 0 has written all the sums itself, and needs nobody's help to add so few.
  if (chunks ? !last_to_finish(finished, shared) : threadIdx.x != 0) return;

  double total = 0;
  next = sums;
#pragma unroll
  for (int i = 0; i < kTerms; ++i) {
    if (i >= terms.count) break;
    const int64_t count = chunks_of(terms.at[i].n);
    const double sum = sum_of_chunks(next, count, shared);
    total += mean ? sum / double(terms.at[i].n) : sum;
    next += count;
  }
  if (threadIdx.x == 0) *out = narrow<S>(Compute<S>(total));
}

template <class S>
__device__ __forceinline__ void write_gradient(const Term<S>& term, int64_t first, const S* upstream, bool each) {
  using T = Compute<S>;
  constexpr int N = kRun<S>;
  const int64_t left = term.n - first;
  T values[N], factors[N], parameters[N];
  load_run(term.logits + first, left, term.vector, values);
  load_parameters(term, first, left, parameters);
  if (each) load_run(upstream + first, left, term.vector, factors);
  const T common = each ? T(0) : widen(*upstream);
#pragma unroll
  for (int j = 0; j < N; ++j)
    values[j] = term.scale * (each ? factors[j] : common) * gan_term_derivative(term.term, values[j], parameters[j]);
  store_run(values, left, term.vector, term.grad + first);
}

// upstream has a value for each logit, or one for all.
template <class S>
__global__ void __launch_bounds__(kThreads) backward_kernel(Terms<S> terms, const S* upstream, bool each) {
  constexpr int N = kRun<S>;
#pragma unroll
  for (int i = 0; i < kTerms; ++i)
    for (int64_t first = first_item() * N; first < terms.at[i].n; first += item_stride() * N)
      write_gradient(terms.at[i], first, upstream, each);
}

template <class S, class Op>
Terms<S> terms_of(const Op& op) {
  const auto term_of = [&](const GanLossTerm& term) {
    using T = Compute<S>;
    return Term<S>{term.term,
                   aligned(term.logits, term.targets),
                   static_cast<const S*>(term.logits),
                   term.n,
                   T(term.smoothing),
                   op.reduction == Reduction::mean ? T(1.0 / double(term.n)) : T(1),
                   static_cast<S*>(term.grad),
                   static_cast<const S*>(term.targets)};
  };
  Terms<S> terms{};
  terms.count = op.count;
  for (int i = 0; i < op.count; ++i) terms.at[i] = term_of(op.terms[i]);
  return terms;
}

// The logits of the longer term.
template <class S>
int64_t longest(const Terms<S>& terms) {
  return std::max(terms.at[0].n, terms.at[1].n);
}

template <class S>
void write_total(const GanLossForward& op, const Terms<S>& terms) {
  const int64_t count = chunks_of(terms.at[0].n) + chunks_of(terms.at[1].n);
  double* chunks = nullptr;
  unsigned* finished = nullptr;
  int64_t blocks = 1;
  if (count > kFewChunks) {
    constexpr int kBlocksOfMultiprocessor = 2048 / kSumThreads;
    const int64_t bound = int64_t(device_limits().multiprocessors) * kBlocksOfMultiprocessor;
    blocks = std::min(chunks_of(longest(terms)), bound);
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
    for (Term<S>& term : terms.at)
      term.vector = aligned(term.logits, term.targets, term.grad, each ? op.upstream : nullptr);
    if (longest(terms) == 0) return;
    launch(op.run, backward_kernel<S>, grid_of(ceil_div(longest(terms), kRun<S>)), kThreads, 0, terms,
           static_cast<const S*>(op.upstream), each);
  });
}

}  // namespace pygan::cuda
