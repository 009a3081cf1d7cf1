// The discriminator's last layer with both losses, their gradients and its own update.
//
// A block takes eight rows at a time, a warp each for the logits. Then its threads, each with four columns of its own,
// write the gradients of the layer below and add the rows times their slopes to the block's sums. The last block to
// arrive adds up the blocks' sums in order, updates weight and bias and writes the statistics.
#include "engine_head.h"

#include <algorithm>

#include "block_sum.h"
#include "elements.h"
#include "engine_epilogues.h"
#include "ptx.h"

namespace pygan::cuda {
namespace {

constexpr int kWarps = kThreads / kWarp;
// What the last block adds up alone; more is a second launch's.
constexpr int64_t kFewSums = 64 * 1024;

// Sums over rows: losses of the terms, then means of D(x) and D(G(z)).
enum Sum { real_loss, fake_loss, generator_loss, real_mean, fake_mean, kSums };

// The kernel's part of a Head.
template <class S>
struct Pass {
  using T = Compute<S>;

  const S* hidden;
  int64_t rows, real_rows, m, k;
  const S *weight, *bias;
  GroupedMask<T> mask;
  Activation activation;
  T slope;
  S *d_grad, *g_grad;
  HeadLoss loss;
  Update<S> update_weight, update_bias;
  Counters counters;
  bool vector;       // hidden, gradients and the weight
  T* columns;        // (blocks, k + 1) sums of the blocks; null: not wanted
  double* sums;      // (blocks, kSums)
  unsigned* ticket;  // null: a second launch adds up
};

struct Shared {
  double d_slope[kWarps], g_slope[kWarps];  // of a tile's rows
  double sums[kWarps][kSums];
  bool last;
};

template <class S>
__device__ __forceinline__ Compute<S> logit(const Pass<S>& p, int64_t row) {
  using T = Compute<S>;
  T sum = 0;
  for (int64_t j = int64_t(threadIdx.x % kWarp) * kQuad; j < p.k; j += kWarp * kQuad) {
    T x[kQuad], w[kQuad];
    load_run(p.hidden + row * p.k + j, p.k - j, p.vector, x);
    load_run(p.weight + j, p.k - j, p.vector, w);
    if (p.mask.on()) p.mask.apply(x, row, j, p.k);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) sum += x[i] * w[i];
  }
  return warp_sum(sum) + (p.bias ? widen(*p.bias) : T(0));
}

// The losses of a row, added to `sums`, and their slopes.
template <class S>
__device__ __forceinline__ void lose(const Pass<S>& p, int64_t row, Compute<S> a, double (&sums)[kSums],
                                     double& d_slope, double& g_slope) {
  using T = Compute<S>;
  const bool real = row < p.real_rows;
  const double each = 1.0 / double(p.m);
  d_slope = g_slope = 0;
  if (p.loss.discriminator) {
    const GanTerm term = real ? GanTerm::real : GanTerm::fake;
    const T smoothing = T(p.loss.smoothing);
    const double value = double(game_term_value(term, a, smoothing)), mean = double(logistic(a));
    // no index that is no constant: it would put the sums into local memory
    sums[real_loss] += real ? value : 0;
    sums[fake_loss] += real ? 0 : value;
    sums[real_mean] += real ? mean : 0;
    sums[fake_mean] += real ? 0 : mean;
    d_slope = p.loss.share * each * double(game_term_derivative(term, a, smoothing));
  }
  if (p.loss.generator && !real) {
    sums[generator_loss] += double(game_term_value(p.loss.generator_term, a, T(0)));
    g_slope = each * double(game_term_derivative(p.loss.generator_term, a, T(0)));
  }
}

// Four columns of the tile's rows: gradients, and the sums of the rows times their slopes.
template <class S>
__device__ __forceinline__ void tile_columns(const Pass<S>& p, const Shared& shared, int64_t begin, int64_t j,
                                             Compute<S>* columns) {
  using T = Compute<S>;
  const int count = int(p.rows - begin < kWarps ? p.rows - begin : kWarps);
  T sum[kQuad] = {}, w[kQuad];
  load_run(p.weight + j, p.k - j, p.vector, w);
  for (int r = 0; r < count; ++r) {
    const int64_t row = begin + r;
    T y[kQuad], x[kQuad], g[kQuad];
    load_run(p.hidden + row * p.k + j, p.k - j, p.vector, y);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) x[i] = 1;
    if (p.mask.on()) p.mask.apply(x, row, j, p.k);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      g[i] = w[i] * x[i];
      sum[i] += T(shared.d_slope[r]) * (y[i] * x[i]);
    }
    T d[kQuad];
    if (p.d_grad) {
#pragma unroll
      for (int i = 0; i < kQuad; ++i) d[i] = T(shared.d_slope[r]) * g[i];
      times_derivatives(p.activation, d, y, p.slope);
      store_run(d, p.k - j, p.vector, p.d_grad + row * p.k + j);
    }
    if (p.g_grad && row >= p.real_rows) {
#pragma unroll
      for (int i = 0; i < kQuad; ++i) d[i] = T(shared.g_slope[r]) * g[i];
      times_derivatives(p.activation, d, y, p.slope);
      store_run(d, p.k - j, p.vector, p.g_grad + (row - p.real_rows) * p.k + j);
    }
  }
  if (!columns) return;
#pragma unroll
  for (int i = 0; i < kQuad; ++i)
    if (j + i < p.k) columns[j + i] += sum[i];
}

template <class S>
__device__ __forceinline__ void write_statistics(const Pass<S>& p, int64_t blocks) {
  if (!p.loss.counts || p.counters.clock->stopped) return;
  double sums[kSums] = {};
  for (int64_t b = 0; b < blocks; ++b)
#pragma unroll
    for (int i = 0; i < kSums; ++i) sums[i] += p.sums[b * kSums + i];
  double* const out = p.counters.statistics + (p.counters.clock->done - 1) * kStatistics;
  const double m = double(p.m);
  bool finite = true;
  const auto write = [&](int i, double value) {
    out[i] = value;
    finite = finite && value - value == 0;
  };
  if (p.loss.discriminator) {
    write(0, sums[real_loss] / m + sums[fake_loss] / m);
    write(2, sums[real_mean] / m);
    write(3, sums[fake_mean] / m);
  }
  if (p.loss.generator) write(1, sums[generator_loss] / m);
  if (!finite) p.counters.clock->bad = 1;
}

// The blocks' sums added up by thread `item` of `items`.
template <class S>
__device__ __forceinline__ void finish(const Pass<S>& p, int64_t blocks, int64_t item, int64_t items) {
  using T = Compute<S>;
  if (p.columns && p.update_weight.on()) {
    for (int64_t j = item; j <= p.k; j += items) {
      double total = 0;
      for (int64_t b = 0; b < blocks; ++b) total += double(p.columns[b * (p.k + 1) + j]);
      const T grad[1] = {T(total)};
      if (j < p.k)
        p.update_weight.apply(j, 1, false, grad);
      else if (p.bias)
        p.update_bias.apply(0, 1, false, grad);
    }
  }
  if (item == 0) write_statistics(p, blocks);
}

template <class S>
__global__ void __launch_bounds__(kThreads, 1) engine_totals_kernel(const Pass<S> p, int64_t blocks) {
  finish(p, blocks, first_item(), item_stride());
}

template <class S>
__global__ void __launch_bounds__(kThreads, 1) engine_head_kernel(const Pass<S> p) {
  using T = Compute<S>;
  Shared& shared = shared_storage<Shared>();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  T* const columns = p.columns ? p.columns + int64_t(blockIdx.x) * (p.k + 1) : nullptr;
  if (columns)
    for (int64_t j = int64_t(threadIdx.x) * kQuad; j < p.k; j += kThreads * kQuad)
      for (int i = 0; i < kQuad && j + i < p.k; ++i) columns[j + i] = 0;
  double sums[kSums] = {}, of_slopes = 0;
  for (int64_t begin = int64_t(blockIdx.x) * kWarps; begin < p.rows; begin += int64_t(gridDim.x) * kWarps) {
    const int64_t row = begin + warp;
    if (row < p.rows) {
      const T a = logit(p, row);
      double d_slope, g_slope;
      lose(p, row, a, sums, d_slope, g_slope);
      of_slopes += d_slope;
      if (lane == 0) {
        shared.d_slope[warp] = d_slope;
        shared.g_slope[warp] = g_slope;
      }
    }
    __syncthreads();  // the tile's slopes are there
    for (int64_t j = int64_t(threadIdx.x) * kQuad; j < p.k; j += kThreads * kQuad)
      tile_columns(p, shared, begin, j, columns);
    __syncthreads();  // the slopes were read: the next tile may overwrite them
  }
  if (lane == 0) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) shared.sums[warp][i] = sums[i];
    shared.d_slope[warp] = of_slopes;
  }
  __syncthreads();  // every warp's sums are there
  if (threadIdx.x < kSums) {
    double sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += shared.sums[w][threadIdx.x];
    p.sums[int64_t(blockIdx.x) * kSums + threadIdx.x] = sum;
  }
  if (threadIdx.x == 0 && columns) {
    double sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += shared.d_slope[w];
    columns[p.k] = T(sum);
  }
  if (!p.ticket) return;
  __syncthreads();  // the block's sums are written
  if (threadIdx.x == 0) {
    __threadfence();  // what the block wrote comes before its ticket
    shared.last = atomicInc(p.ticket, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();  // what others wrote is read after the ticket
  }
  __syncthreads();
  if (shared.last) finish(p, gridDim.x, threadIdx.x, kThreads);
}

}  // namespace

template <class S>
void engine_head(const Resources& run, unsigned* ticket, const Head<S>& head) {
  using T = Compute<S>;
  const int64_t bound = int64_t(device_limits().multiprocessors) * 2;
  const int64_t blocks = std::min(ceil_div(head.rows, kWarps), bound);
  const bool updates = head.update_weight.param, few = blocks * (updates ? head.k + 1 : int64_t(kSums)) <= kFewSums;
  const auto quads = [&](const S* data) { return !data || quads_aligned<S>(data, head.k); };
  Pass<S> pass = {head.hidden,
                  head.rows,
                  head.real_rows,
                  head.m,
                  head.k,
                  head.weight,
                  head.bias,
                  head.mask,
                  head.activation,
                  T(head.slope),
                  head.d_grad,
                  head.g_grad,
                  head.loss,
                  head.update_weight,
                  head.update_bias,
                  *head.counters,
                  quads(head.hidden) && quads(head.weight) && quads(head.d_grad) && quads(head.g_grad),
                  nullptr,
                  scratch<double>(run, size_t(blocks) * kSums),
                  few ? ticket : nullptr};
  if (updates) pass.columns = scratch<T>(run, size_t(blocks) * size_t(head.k + 1));
  launch(run, engine_head_kernel<S>, unsigned(blocks), kThreads, sizeof(Shared), pass);
  if (!few) launch(run, engine_totals_kernel<S>, grid_of(head.k + 1), kThreads, 0, pass, blocks);
}

template void engine_head<float>(const Resources&, unsigned*, const Head<float>&);
template void engine_head<double>(const Resources&, unsigned*, const Head<double>&);
template void engine_head<BFloat16>(const Resources&, unsigned*, const Head<BFloat16>&);
template void engine_head<Float16>(const Resources&, unsigned*, const Head<Float16>&);

}  // namespace pygan::cuda
