// The discriminator's last layer with its loss: logits, loss, its derivative and the weight's gradient in one pass.
//
// A block takes a tile of rows. First its warps multiply rows with the weight, several at a time, so that many loads
// are in flight and the weight is loaded once for all of them; then its threads, each with columns of its own, add the
// tile's rows times their slopes to sums that stay with the block: that second reading finds the tile in the cache.
// The blocks' sums are added up in a fixed order by a second, small launch; where one block is enough it is the only
// one. Backward needs neither: the gradient of `hidden` is slopes times weight, and the rest are scaled sums.
#include <algorithm>

#include "../core/gan_loss.h"
#include "backend.h"
#include "block_sum.h"
#include "elements.h"
#include "ptx.h"

namespace pygan::cuda {
namespace {

constexpr int kBlock = 512;
constexpr int kWarps = kBlock / kWarp;
constexpr int kTogether = 4;               // rows of a warp at a time
constexpr int kTile = kWarps * kTogether;  // rows of a block at a time, or fewer
// Where rows are short, a tile is still in the first-level cache when it is read again.
constexpr int64_t kTileBytes = 64 * 1024;
// What one block does alone: a second launch would cost more than it saves.
constexpr int64_t kFewTiles = 2;
constexpr int64_t kFewElements = 32 * 1024;
constexpr int kBlocksOfMultiprocessor = 2;

// m rows of k elements, and how blocks share them.
template <class S>
struct Rows {
  const S* data;
  int64_t m, k, stride;
  bool vector;
  int together;  // rows of a warp at a time

  PYGAN_HD int tile() const { return kWarps * together; }
  PYGAN_HD const S* row(int64_t i) const { return data + i * stride; }
};

// What a pass over the rows leaves behind: the sums of each block, then the totals.
template <class S>
struct Sums {
  Compute<S>* blocks;  // (blocks, k + 1)
  double* losses;      // (blocks, 2): of real rows, of generated rows
  Compute<S>* total;   // (k + 1), null: not wanted
  S* loss;             // null: not wanted
  int64_t k, real_rows, generated_rows;
  bool both;  // the loss has a term of real rows
};

template <class S>
struct Head {
  const S *weight, *bias;
  int64_t real_rows;
  GanTerm generated;
  Compute<S> smoothing, real_scale, generated_scale;
  S* logits;
  Compute<S>* slopes;
};

// grad_loss * slopes + grad_logits
template <class S>
struct Upstream {
  const S *grad_loss, *grad_logits;
  const Compute<S>* slopes;

  __device__ __forceinline__ Compute<S> factor(int64_t i) const {
    const Compute<S> direct = grad_logits ? widen(grad_logits[i]) : Compute<S>(0);
    return grad_loss ? direct + widen(*grad_loss) * slopes[i] : direct;
  }
};

template <class T>
struct Shared {
  double warps[kWarps];
  T factors[kTile];
};

// The warp's rows [first, first + kRows) times the weight; in every lane. Rows past the last are the last again.
template <int kRows, class S>
__device__ __forceinline__ void multiply(const Rows<S>& rows, const S* weight, bool vector, int64_t first,
                                         Compute<S> (&products)[kRows]) {
  using T = Compute<S>;
  constexpr int N = kRun<S>;
  const S* at[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    at[r] = rows.row(first + r < rows.m ? first + r : rows.m - 1);
    products[r] = 0;
  }
  constexpr int kRuns = kTogether / kRows;  // of a row at a time: as many loads are in flight, however few the rows
  constexpr int kStride = kWarp * N;
  int64_t j = int64_t(threadIdx.x % kWarp) * N;
  if (vector && rows.vector) {
    for (; j + (kRuns - 1) * kStride + N <= rows.k; j += kRuns * kStride) {
      Vectors<S, N> w[kRuns], x[kRuns][kRows];
#pragma unroll
      for (int run = 0; run < kRuns; ++run) {
        w[run] = stored_run<N>(weight + j + run * kStride, N, true);
#pragma unroll
        for (int r = 0; r < kRows; ++r) x[run][r] = stored_run<N>(at[r] + j + run * kStride, N, true);
      }
#pragma unroll
      for (int run = 0; run < kRuns; ++run)
#pragma unroll
        for (int r = 0; r < kRows; ++r)
#pragma unroll
          for (int n = 0; n < N; ++n) products[r] += widen(x[run][r].element[n]) * widen(w[run].element[n]);
    }
  }
  for (; j < rows.k; j += kStride) {
    T w[N];
    load_run(weight + j, rows.k - j, vector, w);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      T x[N];
      load_run(at[r] + j, rows.k - j, rows.vector, x);
#pragma unroll
      for (int n = 0; n < N; ++n) products[r] += x[n] * w[n];
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) products[r] = warp_sum(products[r]);
}

struct Losses {
  double real = 0, generated = 0;
};

// The loss of one row; returns its slope.
template <class S>
__device__ __forceinline__ Compute<S> lose(const Head<S>& head, int64_t i, Compute<S> product, Losses& losses) {
  using T = Compute<S>;
  const bool real = i < head.real_rows;
  const GanTerm term = real ? GanTerm::real : head.generated;
  const T a = product + (head.bias ? widen(*head.bias) : T(0));
  const T slope = (real ? head.real_scale : head.generated_scale) * game_term_derivative(term, a, head.smoothing);
  (real ? losses.real : losses.generated) += double(game_term_value(term, a, head.smoothing));
  head.logits[i] = narrow<S>(a);
  head.slopes[i] = slope;
  return slope;
}

// Slopes of the tile's rows, in shared memory too; those past the last row are 0.
template <int kRows, class S>
__device__ __forceinline__ void slopes_of_tile(const Rows<S>& rows, const Head<S>& head, bool vector, int64_t begin,
                                               Losses& losses, Shared<Compute<S>>& shared) {
  const int lane = threadIdx.x % kWarp, place = threadIdx.x / kWarp * kRows;
  Compute<S> products[kRows], mine = 0;
  multiply<kRows>(rows, head.weight, vector, begin + place, products);
#pragma unroll
  for (int r = 0; r < kRows; ++r) mine = lane == r ? products[r] : mine;
  if (lane >= kRows) return;
  const int64_t i = begin + place + lane;
  shared.factors[place + lane] = i < rows.m ? lose(head, i, mine, losses) : Compute<S>(0);
}

// Threads own columns: runs of N, `groups` threads to a run where there are fewer runs than threads; each of these has
// the rows that are its number modulo `groups`, and sums of its own.
struct Columns {
  int64_t runs;
  int groups, group;
  int64_t first;  // run

  __device__ __forceinline__ Columns(int64_t k, int n)
      : runs((k + n - 1) / n),
        groups(runs < kBlock ? int(kBlock / (runs > 0 ? runs : 1)) : 1),
        group(runs < kBlock ? int(threadIdx.x / (runs > 0 ? runs : 1)) : 0),
        first(int64_t(threadIdx.x) - group * (runs < kBlock ? runs : 0)) {}
};

// sums[j] += the sum over the tile's rows of factors[row] * row[j]
template <class S>
__device__ __forceinline__ void add_tile(const Rows<S>& rows, int64_t begin, const Columns& columns,
                                         const Compute<S>* factors, Compute<S>* sums) {
  using T = Compute<S>;
  constexpr int N = kRun<S>;
  if (columns.group >= columns.groups) return;
  const int count = rows.m - begin < rows.tile() ? int(rows.m - begin) : rows.tile();
  for (int64_t run = columns.first; run < columns.runs; run += kBlock) {
    const int64_t j = run * N;
    T sum[N];
#pragma unroll
    for (int n = 0; n < N; ++n) sum[n] = sums[j + n];
#pragma unroll 4
    for (int r = columns.group; r < count; r += columns.groups) {
      T x[N];
      load_run(rows.row(begin + r) + j, rows.k - j, rows.vector, x);
#pragma unroll
      for (int n = 0; n < N; ++n) sum[n] += factors[r] * x[n];
    }
#pragma unroll
    for (int n = 0; n < N; ++n) sums[j + n] = sum[n];
  }
}

// Where a thread's sums lie: the columns of a group, a whole number of runs.
template <class S>
PYGAN_HD int64_t padded(int64_t k) {
  return ceil_div(k, kRun<S>) * kRun<S>;
}

template <class S>
PYGAN_HD int64_t group_sums(int64_t k) {
  const int64_t runs = ceil_div(k, kRun<S>);
  return (runs == 0 ? 0 : runs < kBlock ? kBlock / runs : 1) * padded<S>(k);
}

// Totals of blocks in order, by thread `item` of `items`.
template <class S>
__device__ __forceinline__ void write_totals(const Sums<S>& sums, int64_t blocks, int64_t item, int64_t items) {
  using T = Compute<S>;
  if (sums.total) {
    for (int64_t j = item; j <= sums.k; j += items) {
      double total = 0;
      for (int64_t b = 0; b < blocks; ++b) total += double(sums.blocks[b * (sums.k + 1) + j]);
      sums.total[j] = T(total);
    }
  }
  if (item != items - 1 || !sums.loss) return;
  Losses total;
  for (int64_t b = 0; b < blocks; ++b) {
    total.real += sums.losses[2 * b];
    total.generated += sums.losses[2 * b + 1];
  }
  const double generated = total.generated / double(sums.generated_rows);
  *sums.loss = narrow<S>(T(sums.both ? total.real / double(sums.real_rows) + generated : generated));
}

template <class S>
__global__ void __launch_bounds__(kThreads) head_totals_kernel(Sums<S> sums, int64_t blocks) {
  write_totals(sums, blocks, first_item(), item_stride());
}

// The block's sums of its rows, from those of its threads.
template <class S>
__device__ __forceinline__ void write_block(const Sums<S>& sums, const Columns& columns, const Compute<S>* mine,
                                            double of_factors, const Losses& losses, Shared<Compute<S>>& shared) {
  using T = Compute<S>;
  const double factor_sum = block_sum(of_factors, shared.warps);  // its barriers also come before others' sums are read
  const double real = block_sum(losses.real, shared.warps), generated = block_sum(losses.generated, shared.warps);
  if (sums.total) {
    T* const out = sums.blocks + int64_t(blockIdx.x) * (sums.k + 1);
    for (int64_t j = threadIdx.x; j < sums.k; j += kBlock) {
      T total = 0;
      for (int g = 0; g < columns.groups; ++g) total += mine[g * padded<S>(sums.k) + j];
      out[j] = total;
    }
    if (threadIdx.x == 0) out[sums.k] = T(factor_sum);
  }
  if (threadIdx.x == 0 && sums.loss) {
    sums.losses[2 * int64_t(blockIdx.x)] = real;
    sums.losses[2 * int64_t(blockIdx.x) + 1] = generated;
  }
}

// Tiles by turns. find_factors(begin, losses) puts the factors of a tile's rows into shared memory. `wide` is where
// threads keep their sums when shared memory is too small for them.
template <class S, class F>
__device__ __forceinline__ void pass(const Rows<S>& rows, const Sums<S>& sums, Compute<S>* wide,
                                     Shared<Compute<S>>& shared, const F& find_factors) {
  using T = Compute<S>;
  const Columns columns(rows.k, kRun<S>);
  const int64_t count = group_sums<S>(rows.k);
  T* const mine = wide ? wide + blockIdx.x * count : reinterpret_cast<T*>(&shared + 1);
  if (sums.total)
    for (int64_t j = threadIdx.x; j < count; j += kBlock) mine[j] = 0;
  Losses losses;
  double of_factors = 0;
  for (int64_t begin = int64_t(blockIdx.x) * rows.tile(); begin < rows.m; begin += int64_t(gridDim.x) * rows.tile()) {
    find_factors(begin, losses);
    __syncthreads();  // the tile's factors are there, and the sums' first zeros
    if (sums.total) {
      add_tile(rows, begin, columns, shared.factors, mine + columns.group * padded<S>(rows.k));
      if (threadIdx.x < unsigned(rows.tile())) of_factors += double(shared.factors[threadIdx.x]);
    }
    __syncthreads();  // the factors were read: the next tile may overwrite them
  }
  write_block(sums, columns, mine, of_factors, losses, shared);
  if (gridDim.x > 1) return;
  __syncthreads();  // thread 0's sums are there for those who add them up
  write_totals(sums, 1, threadIdx.x, kBlock);
}

template <class S>
__global__ void __launch_bounds__(kBlock, kBlocksOfMultiprocessor)
    head_kernel(Rows<S> rows, Head<S> head, bool vector_weight, Sums<S> sums, Compute<S>* wide) {
  auto& shared = shared_storage<Shared<Compute<S>>>();
  pass(rows, sums, wide, shared, [&](int64_t begin, Losses& losses) {
    if (rows.together == kTogether)
      slopes_of_tile<kTogether>(rows, head, vector_weight, begin, losses, shared);
    else
      slopes_of_tile<1>(rows, head, vector_weight, begin, losses, shared);
  });
}

// For a gradient of the logits: the sums of the rows times any factors.
template <class S>
__global__ void __launch_bounds__(kBlock, kBlocksOfMultiprocessor)
    head_sums_kernel(Rows<S> rows, Upstream<S> upstream, Sums<S> sums, Compute<S>* wide) {
  auto& shared = shared_storage<Shared<Compute<S>>>();
  pass(rows, sums, wide, shared, [&](int64_t begin, Losses&) {
    const int64_t i = begin + threadIdx.x;
    if (threadIdx.x < unsigned(rows.tile()))
      shared.factors[threadIdx.x] = i < rows.m ? upstream.factor(i) : Compute<S>(0);
  });
}

template <class S>
struct Gradients {
  S *hidden, *weight, *bias;  // null where not wanted
  const Compute<S>* sums;
  const S* scale;  // of the sums; null: 1
};

// hidden[i][j] = factor[i] * weight[j], a warp for several rows; weight and bias are scaled sums.
template <class S>
__global__ void __launch_bounds__(kThreads, 1)
    head_gradients_kernel(Upstream<S> upstream, const S* weight, int64_t m, int64_t k, bool vector, Gradients<S> out) {
  using T = Compute<S>;
  constexpr int N = kRun<S>;
  const T scale = out.scale ? widen(*out.scale) : T(1);
  if (out.weight)
    for (int64_t j = first_item(); j < k; j += item_stride()) out.weight[j] = narrow<S>(scale * out.sums[j]);
  if (out.bias && first_item() == 0) *out.bias = narrow<S>(scale * out.sums[k]);
  if (!out.hidden) return;
  for (int64_t first = first_item() / kWarp * kTogether; first < m; first += item_stride() / kWarp * kTogether) {
    T factors[kTogether];
#pragma unroll
    for (int r = 0; r < kTogether; ++r) factors[r] = first + r < m ? upstream.factor(first + r) : T(0);
    for (int64_t j = int64_t(threadIdx.x % kWarp) * N; j < k; j += kWarp * N) {
      T w[N];
      load_run(weight + j, k - j, vector, w);
#pragma unroll
      for (int r = 0; r < kTogether; ++r) {
        T values[N];
#pragma unroll
        for (int n = 0; n < N; ++n) values[n] = factors[r] * w[n];
        if (first + r < m) store_run(values, k - j, vector, out.hidden + (first + r) * k + j);
      }
    }
  }
}

template <class S>
Rows<S> rows_of(const Matrix& hidden) {
  const bool vector = aligned(hidden.data) && (hidden.rows < 2 || hidden.row_stride % kVector<S> == 0);
  const bool small = hidden.cols * int64_t(sizeof(S)) * kTile <= kTileBytes;
  return {
      static_cast<const S*>(hidden.data), hidden.rows, hidden.cols, hidden.row_stride, vector, small ? kTogether : 1};
}

template <class S>
unsigned blocks_for(const Rows<S>& rows) {
  const int64_t tiles = ceil_div(rows.m, rows.tile());
  if (tiles <= kFewTiles && rows.m * rows.k <= kFewElements) return 1;
  const int64_t bound = int64_t(device_limits().multiprocessors) * kBlocksOfMultiprocessor;
  return unsigned(std::min(tiles, bound));
}

// Memory for the sums of `blocks` blocks: in shared memory if they fit there.
template <class S>
struct Memory {
  Compute<S>* wide = nullptr;
  size_t shared_bytes;

  Memory(const Resources& run, const Rows<S>& rows, unsigned blocks, Sums<S>& sums)
      : shared_bytes(sizeof(Shared<Compute<S>>)) {
    constexpr size_t kWithoutAsking = 48 * 1024;
    sums.losses = scratch<double>(run, 2 * size_t(blocks));
    if (!sums.total) return;
    sums.blocks = scratch<Compute<S>>(run, size_t(blocks) * size_t(rows.k + 1));
    const size_t count = size_t(group_sums<S>(rows.k));
    if (shared_bytes + count * sizeof(Compute<S>) <= kWithoutAsking)
      shared_bytes += count * sizeof(Compute<S>);
    else
      wide = scratch<Compute<S>>(run, count * blocks);
  }
};

template <class S>
void finish(const Resources& run, const Sums<S>& sums, unsigned blocks) {
  if (blocks > 1) launch(run, head_totals_kernel<S>, grid_of(sums.k + 2), kThreads, 0, sums, int64_t(blocks));
}

template <class S>
void forward(const HeadLossForward& op) {
  using T = Compute<S>;
  const int64_t m = op.hidden.rows, generated_rows = m - op.real_rows;
  const Rows<S> rows = rows_of<S>(op.hidden);
  const Head<S> head = {static_cast<const S*>(op.weight),
                        static_cast<const S*>(op.bias),
                        op.real_rows,
                        op.generated,
                        T(op.smoothing),
                        T(1.0 / double(op.real_rows)),
                        T(1.0 / double(generated_rows)),
                        static_cast<S*>(op.logits),
                        static_cast<T*>(op.slopes)};
  Sums<S> sums = {nullptr, nullptr,      static_cast<T*>(op.sums), static_cast<S*>(op.loss),
                  rows.k,  op.real_rows, generated_rows,           op.generated == GanTerm::fake};
  const unsigned blocks = blocks_for(rows);
  const Memory<S> memory(op.run, rows, blocks, sums);
  launch(op.run, head_kernel<S>, blocks, kBlock, memory.shared_bytes, rows, head, aligned(op.weight), sums,
         memory.wide);
  finish(op.run, sums, blocks);
}

// The sums of the rows times the upstream factors, where the forward pass's do not serve.
template <class S>
const Compute<S>* fresh_sums(const HeadLossBackward& op, const Upstream<S>& upstream) {
  const Rows<S> rows = rows_of<S>(op.hidden);
  Sums<S> sums{};
  sums.k = rows.k;
  sums.total = scratch<Compute<S>>(op.run, size_t(rows.k + 1));
  const unsigned blocks = blocks_for(rows);
  const Memory<S> memory(op.run, rows, blocks, sums);
  launch(op.run, head_sums_kernel<S>, blocks, kBlock, memory.shared_bytes, rows, upstream, sums, memory.wide);
  finish(op.run, sums, blocks);
  return sums.total;
}

template <class S>
void backward(const HeadLossBackward& op) {
  const int64_t m = op.hidden.rows, k = op.hidden.cols;
  const Upstream<S> upstream = {static_cast<const S*>(op.grad_loss), static_cast<const S*>(op.grad_logits),
                                static_cast<const Compute<S>*>(op.slopes)};
  Gradients<S> out = {static_cast<S*>(op.grad_hidden), static_cast<S*>(op.grad_weight), static_cast<S*>(op.grad_bias),
                      static_cast<const Compute<S>*>(op.sums), upstream.grad_loss};
  if (!out.hidden && !out.weight && !out.bias) return;
  const bool scaled = op.sums && op.grad_loss && !op.grad_logits;
  if ((out.weight || out.bias) && !scaled) {
    out.sums = fresh_sums(op, upstream);
    out.scale = nullptr;
  }
  const bool vector = aligned(op.weight, op.grad_hidden) && (m < 2 || k % kVector<S> == 0);
  const int64_t warps = out.hidden ? ceil_div(m, kTogether) : 0;
  launch(op.run, head_gradients_kernel<S>, grid_of(std::max(warps * kWarp, k + 1)), kThreads, 0, upstream,
         static_cast<const S*>(op.weight), m, k, vector, out);
}

}  // namespace

void head_loss_forward(const HeadLossForward& op) {
  for_dtype(op.dtype, [&](auto* tag) { forward<std::remove_pointer_t<decltype(tag)>>(op); });
}

void head_loss_backward(const HeadLossBackward& op) {
  for_dtype(op.dtype, [&](auto* tag) { backward<std::remove_pointer_t<decltype(tag)>>(op); });
}

}  // namespace pygan::cuda
