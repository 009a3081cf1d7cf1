// The one matrix product of the CUDA backend: C[i, j] = sum_k A[i, k] B[j, k]. Operands (operands.h) are copied or
// made on the fly as they enter shared memory, and the result is consumed (epilogues.h) as it leaves the registers.
// Every layer, forward and backward, is this product with other operands and another epilogue.
//
// A block walks the inner dimension in slices of 128 bytes through a ring of kStages slices: cp.async fills the ring
// ahead of the units that multiply. Rows in shared memory are padded by 16 or 32 bytes, which keeps ldmatrix, the
// 16-byte loads of the ordinary units and the copies free of bank conflicts.
#pragma once

#include "epilogues.h"
#include "math.h"
#include "operands.h"
#include "ptx.h"
#include "splits.h"
#include "tiles.h"

namespace pygan::cuda {

// Which axis of the product runs along a row of the operand's matrix: its inner dimension, or its outer one.
enum class Along { inner, outer };

template <class S>
constexpr int kDepth = 128 / int(sizeof(S));  // elements of a slice

// One slice of an operand in shared memory, laid out as its matrix is.
template <class S, int kOuter, Along kAlong>
struct alignas(128) Slice {
  static constexpr int kRows = kAlong == Along::inner ? kOuter : kDepth<S>;
  static constexpr int kCols = kAlong == Along::inner ? kDepth<S> : kOuter;
  static constexpr int kLd = kCols + (kAlong == Along::inner || sizeof(S) == 2 ? 1 : 2) * kVector<S>;

  S value[kRows * kLd];
};

// A block's transport of slices: copies start here and finish by themselves; made chunks wait in registers.
template <class S, int kOuter, Along kAlong, int kThreads>
struct Transport {
  using To = Slice<S, kOuter, kAlong>;
  static constexpr int kPerRow = To::kCols / kVector<S>;
  static constexpr int kEach = To::kRows * kPerRow / kThreads;
  static_assert(To::kRows * kPerRow % kThreads == 0);

  Chunk<S> held[kEach];

  // Eight lanes write at once. Where they hold two rows of 64 bytes, 80 apart, rows r and r + 4 share no bank.
  __device__ static int row_of(int chunk) {
    return kPerRow == 4 ? chunk / 32 * 8 + chunk / 4 % 2 * 4 + chunk / 8 % 4 : chunk / kPerRow;
  }

  template <class Operand>
  __device__ void begin(const Operand& operand, To& slice, int64_t outer, int64_t inner) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int chunk = int(threadIdx.x) + i * kThreads;
      const int row = row_of(chunk), col = chunk % kPerRow * kVector<S>;
      const int64_t r = (kAlong == Along::inner ? outer : inner) + row;
      const int64_t c = (kAlong == Along::inner ? inner : outer) + col;
      const int count = operand.valid(r, c);
      if (Operand::kAlways || operand.copied)
        cp_async_16(slice.value + row * To::kLd + col, count ? operand.at(r, c) : operand.at(0, 0),
                    count * int(sizeof(S)));
      else if constexpr (!Operand::kAlways)
        held[i] = operand.chunk(r, c, count);
    }
  }

  template <class Operand>
  __device__ void finish(const Operand& operand, To& slice) {
    if constexpr (!Operand::kAlways) {
      if (operand.copied) return;
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const int chunk = int(threadIdx.x) + i * kThreads;
        const int row = row_of(chunk), col = chunk % kPerRow * kVector<S>;
        *reinterpret_cast<Chunk<S>*>(slice.value + row * To::kLd + col) = held[i];
      }
    }
  }
};

// A finished tile in shared memory.
template <class T, int kRows, int kCols>
struct alignas(128) ResultTile {
  static constexpr int kLd = kCols + 8;

  T value[kRows * kLd];

  __device__ T operator()(int r, int l) const { return value[r * kLd + l]; }
  __device__ Staged<T> staged(int) { return {value, kLd}; }
  __device__ void quad(int r, int l, int, T (&values)[kQuad]) const {
    struct alignas(16) Four {
      T value[kQuad];
    };
    const Four four = *reinterpret_cast<const Four*>(value + r * kLd + l);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) values[i] = four.value[i];
  }
};

// ---- the units that multiply: accumulators of one thread ----

template <Math kMath>
__device__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (kMath == Math::tf32) mma_tf32(d, a, b);
  if constexpr (kMath == Math::bf16) mma_bf16(d, a, b);
  if constexpr (kMath == Math::f16) mma_f16(d, a, b);
}

// Tensor cores: a warp owns a tile of C, in fragments of 16 x 8; a step is 32 bytes of the inner dimension.
template <Math kMath, class Tile, Along kAlongA, Along kAlongB>
struct TensorUnits {
  using S = Stored<kMath>;
  static constexpr int kWarpCols = Tile::kThreads / 32 / Tile::kWarpRows;
  static constexpr int kRowFragments = Tile::kRows / Tile::kWarpRows / 16;
  static constexpr int kColFragments = Tile::kCols / kWarpCols / 8;
  static constexpr int kStep = 32 / int(sizeof(S));
  static_assert(kColFragments % 2 == 0);

  float sum[kRowFragments][kColFragments][4] = {};

  __device__ static int lane() { return int(threadIdx.x) % 32; }
  __device__ static int first_row() { return int(threadIdx.x) / 32 / kWarpCols * kRowFragments * 16; }
  __device__ static int first_col() { return int(threadIdx.x) / 32 % kWarpCols * kColFragments * 8; }

  template <class SliceA, class SliceB>
  __device__ void multiply(const SliceA& a, const SliceB& b) {
#pragma unroll
    for (int k = 0; k < kDepth<S>; k += kStep) {
      uint32_t rows[kRowFragments][4], cols[kColFragments][2];
#pragma unroll
      for (int i = 0; i < kRowFragments; ++i) load_rows(a, first_row() + i * 16, k, rows[i]);
#pragma unroll
      for (int j = 0; j < kColFragments; j += 2) load_cols(b, first_col() + j * 8, k, cols[j], cols[j + 1]);
#pragma unroll
      for (int i = 0; i < kRowFragments; ++i)
#pragma unroll
        for (int j = 0; j < kColFragments; ++j) mma<kMath>(sum[i][j], rows[i], cols[j]);
    }
  }

  template <class Result>
  __device__ void store(Result& result) const {
    const int row = first_row() + lane() / 4, col = first_col() + lane() % 4 * 2;
#pragma unroll
    for (int i = 0; i < kRowFragments; ++i)
#pragma unroll
      for (int j = 0; j < kColFragments; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          *reinterpret_cast<float2*>(result.value + (row + i * 16 + half * 8) * Result::kLd + col + j * 8) =
              make_float2(sum[i][j][2 * half], sum[i][j][2 * half + 1]);
  }

 private:
  // The 16 x 32-byte fragment of A at (row, k).
  template <class SliceA>
  __device__ static void load_rows(const SliceA& a, int row, int k, uint32_t (&r)[4]) {
    const int matrix = lane() / 8, of_matrix = lane() % 8;
    if constexpr (kAlongA == Along::inner) {
      ldmatrix_x4(r, a.value + (row + matrix % 2 * 8 + of_matrix) * SliceA::kLd + k + matrix / 2 * (kStep / 2));
    } else if constexpr (sizeof(S) == 2) {
      ldmatrix_x4_trans(r, a.value + (k + matrix / 2 * 8 + of_matrix) * SliceA::kLd + row + matrix % 2 * 8);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        r[i] = to_tf32(a.value[(k + lane() % 4 + i / 2 * 4) * SliceA::kLd + row + lane() / 4 + i % 2 * 8]);
    }
    if constexpr (kMath == Math::tf32 && kAlongA == Along::inner) round_all(r);
  }

  // Two fragments of B, 8 columns x 32 bytes each, at (col, k).
  template <class SliceB>
  __device__ static void load_cols(const SliceB& b, int col, int k, uint32_t (&left)[2], uint32_t (&right)[2]) {
    const int matrix = lane() / 8, of_matrix = lane() % 8;
    uint32_t r[4];
    if constexpr (kAlongB == Along::inner) {
      ldmatrix_x4(r, b.value + (col + matrix / 2 * 8 + of_matrix) * SliceB::kLd + k + matrix % 2 * (kStep / 2));
    } else if constexpr (sizeof(S) == 2) {
      ldmatrix_x4_trans(r, b.value + (k + matrix % 2 * 8 + of_matrix) * SliceB::kLd + col + matrix / 2 * 8);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        r[i] = to_tf32(b.value[(k + lane() % 4 + i % 2 * 4) * SliceB::kLd + col + lane() / 4 + i / 2 * 8]);
    }
    if constexpr (kMath == Math::tf32 && kAlongB == Along::inner) round_all(r);
    left[0] = r[0], left[1] = r[1], right[0] = r[2], right[1] = r[3];
  }

  __device__ static void round_all(uint32_t (&r)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) r[i] = to_tf32(bits_to_float(r[i]));
  }
};

// Ordinary units: a thread owns rows and columns spread over the tile, so that the lanes of a warp read neighbouring
// chunks: 4 rows by 8 columns of lanes. A step is one chunk of the inner dimension.
template <Math kMath, class Tile, Along kAlongA, Along kAlongB>
struct OrdinaryUnits {
  using S = Stored<kMath>;
  using T = Accumulated<kMath>;
  static constexpr int kStep = kVector<S>;
  static constexpr int kThreadRows = 16;
  static constexpr int kThreadCols = Tile::kThreads / kThreadRows;
  static constexpr int kRows = Tile::kRows / kThreadRows, kCols = Tile::kCols / kThreadCols;
  static constexpr int kWarpsAcross = kThreadCols / 8;
  static constexpr int kStepsAtOnce = kRows * kCols <= 16 ? 2 : 1;  // with more sums two steps would spill

  T sum[kRows][kCols] = {};

  __device__ static int thread_row() { return int(threadIdx.x) / 32 / kWarpsAcross * 4 + int(threadIdx.x) % 32 / 8; }
  __device__ static int thread_col() { return int(threadIdx.x) / 32 % kWarpsAcross * 8 + int(threadIdx.x) % 8; }

  // Elements of a thread's share that are neighbours in the tile: whole chunks along a row of shared memory.
  template <Along kAlong, int kCount>
  static constexpr int kRun = kAlong == Along::inner ? 1
                              : kCount < kStep       ? kCount
                                                     : kStep;

  template <int N>
  struct alignas(N * sizeof(T)) Run {
    T value[N];
  };

  // Where element i of a thread's share lies in the tile.
  template <Along kAlong, int kCount, int kThreads>
  __device__ static int position(int thread, int i) {
    constexpr int kRun = OrdinaryUnits::kRun<kAlong, kCount>;
    return (i / kRun * kThreads + thread) * kRun + i % kRun;
  }

  template <class SliceA, class SliceB>
  __device__ void multiply(const SliceA& a, const SliceB& b) {
#pragma unroll kStepsAtOnce
    for (int k = 0; k < kDepth<S>; k += kStep) {
      S rows[kRows][kStep], cols[kCols][kStep];
      load<kAlongA, kRows, kThreadRows>(a, thread_row(), k, rows);
      load<kAlongB, kCols, kThreadCols>(b, thread_col(), k, cols);
#pragma unroll
      for (int step = 0; step < kStep; ++step)
#pragma unroll
        for (int i = 0; i < kRows; ++i)
#pragma unroll
          for (int j = 0; j < kCols; ++j) sum[i][j] = fma(rows[i][step], cols[j][step], sum[i][j]);
    }
  }

  template <class Result>
  __device__ void store(Result& result) const {
    constexpr int N = kRun<kAlongB, kCols>;
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kCols; j += N) {
        Run<N> run;
#pragma unroll
        for (int e = 0; e < N; ++e) run.value[e] = sum[i][j + e];
        const int row = position<kAlongA, kRows, kThreadRows>(thread_row(), i);
        const int col = position<kAlongB, kCols, kThreadCols>(thread_col(), j);
        *reinterpret_cast<Run<N>*>(result.value + row * Result::kLd + col) = run;
      }
  }

 private:
  template <Along kAlong, int kCount, int kThreads, class AnySlice>
  __device__ static void load(const AnySlice& slice, int thread, int k, S (&to)[kCount][kStep]) {
    if constexpr (kAlong == Along::inner) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const S* row = slice.value + position<kAlong, kCount, kThreads>(thread, i) * AnySlice::kLd + k;
        const Chunk<S> chunk = *reinterpret_cast<const Chunk<S>*>(row);
#pragma unroll
        for (int step = 0; step < kStep; ++step) to[i][step] = chunk.value[step];
      }
    } else {
      constexpr int N = kRun<kAlong, kCount>;
#pragma unroll
      for (int step = 0; step < kStep; ++step)
#pragma unroll
        for (int i = 0; i < kCount; i += N) {
          const S* at = slice.value + (k + step) * AnySlice::kLd + position<kAlong, kCount, kThreads>(thread, i);
          const Run<N> run = *reinterpret_cast<const Run<N>*>(at);
#pragma unroll
          for (int e = 0; e < N; ++e) to[i + e][step] = run.value[e];
        }
    }
  }
};

template <Math kMath, class Tile, Along kAlongA, Along kAlongB>
using UnitsOf =
    std::conditional_t<kMath == Math::fp32 || kMath == Math::fp64, OrdinaryUnits<kMath, Tile, kAlongA, kAlongB>,
                       TensorUnits<kMath, Tile, kAlongA, kAlongB>>;

// ---- the kernels ----

template <Math kMath, class Tile, Along kAlongA, Along kAlongB>
union BlockMemory {
  using S = Stored<kMath>;
  struct Ring {
    Slice<S, Tile::kRows, kAlongA> a;
    Slice<S, Tile::kCols, kAlongB> b;
  } ring[Tile::kStages];
  ResultTile<Accumulated<kMath>, Tile::kRows, Tile::kCols> result;
  bool last;  // of the blocks that share a tile, to arrive
};

// The sums of A over the inner dimension: a bias gradient, in the same pass over the output gradient.
template <class S>
struct RowSums {
  S* out;           // (m), or null
  double* partial;  // (splits, m) where the product is split
};

template <Math kMath, class OperandA, class OperandB, class Epilogue>
struct Product {
  int64_t m, n, k;
  OperandA a;
  OperandB b;
  Epilogue epilogue;
  RowSums<Stored<kMath>> row_sums;
  int tile_cols;                // of C that a block finishes
  int slices_per_split;         // the last split may have fewer
  Accumulated<kMath>* partial;  // (splits, m, n) where the product is split
  unsigned* tickets;            // zeros, one a tile: the last block to arrive finishes it; null: a second launch does
};

// A tile of C by the whole block.
template <Math kMath, class Tile, Along kAlongA, Along kAlongB, class P>
__device__ __forceinline__ void multiply_tile(const P& p, int64_t tile, const Splits& splits) {
  using S = Stored<kMath>;
  using T = Accumulated<kMath>;
  auto& shared = shared_storage<BlockMemory<kMath, Tile, kAlongA, kAlongB>>();
  constexpr int kStages = Tile::kStages;

  const int64_t across = p.n > 0 ? (p.n + p.tile_cols - 1) / p.tile_cols : 1;
  const int64_t row = tile / across * Tile::kRows, col = tile % across * p.tile_cols;
  const int64_t all = (p.k + kDepth<S> - 1) / kDepth<S>, first = int64_t(splits.index) * p.slices_per_split;
  const int slices = int(all - first < p.slices_per_split ? all - first : p.slices_per_split);
  const bool sums_rows = kAlongA == Along::outer && p.row_sums.out && col == 0 && threadIdx.x < Tile::kRows;

  Transport<S, Tile::kRows, kAlongA, Tile::kThreads> to_a;
  Transport<S, Tile::kCols, kAlongB, Tile::kThreads> to_b;
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < slices) {
      to_a.begin(p.a, shared.ring[s].a, row, (first + s) * kDepth<S>);
      to_b.begin(p.b, shared.ring[s].b, col, (first + s) * kDepth<S>);
      to_a.finish(p.a, shared.ring[s].a);
      to_b.finish(p.b, shared.ring[s].b);
    }
    cp_async_commit();
  }

  UnitsOf<kMath, Tile, kAlongA, kAlongB> units;
  double row_sum = 0;
  for (int s = 0; s < slices; ++s) {
    cp_async_wait<kStages - 2>();
    __syncthreads();  // slice s has arrived, and no thread reads the slot that is filled next
    const int next = s + kStages - 1;
    auto& slot = shared.ring[next % kStages];
    if (next < slices) {
      to_a.begin(p.a, slot.a, row, (first + next) * kDepth<S>);
      to_b.begin(p.b, slot.b, col, (first + next) * kDepth<S>);
    }
    cp_async_commit();
    const auto& now = shared.ring[s % kStages];
    units.multiply(now.a, now.b);
    if (sums_rows) {
      T sum = 0;
      for (int d = 0; d < kDepth<S>; ++d) sum += T(widen(now.a.value[d * now.a.kLd + int(threadIdx.x)]));
      row_sum += double(sum);
    }
    if (next < slices) {
      to_a.finish(p.a, slot.a);
      to_b.finish(p.b, slot.b);
    }
  }

  const bool split = splits.count > 1;
  if (sums_rows && row + threadIdx.x < p.m) {
    if (split)
      p.row_sums.partial[int64_t(splits.index) * p.m + row + threadIdx.x] = row_sum;
    else if constexpr (kTakesRowSums<decltype(p.epilogue)>)
      p.epilogue.row_sum(row + threadIdx.x, T(row_sum));
    else
      p.row_sums.out[row + threadIdx.x] = narrow<S>(T(row_sum));
  }
  cp_async_wait<0>();
  __syncthreads();  // the ring becomes the result
  units.store(shared.result);
  __syncthreads();
  const int64_t rows_left = p.m - row, cols_left = p.n - col;
  const Region region{row, col, int(rows_left < Tile::kRows ? rows_left : Tile::kRows),
                      int(cols_left < p.tile_cols ? cols_left : p.tile_cols)};
  if (!split) {
    p.epilogue.consume(shared.result, region);
    return;
  }
  T* const partial = p.partial + (int64_t(splits.index) * p.m + row) * p.n + col;
  for_each_quad<T>(shared.result, region, StorePartial<T>{partial, p.n, partial_aligned(p.n, p.tile_cols)});
  if constexpr (kFinishesSplits<decltype(p.epilogue)>)
    if (p.tickets) finish_split(p, tile, splits, shared, region);
}

// Grid (tiles of C, splits).
template <Math kMath, class Tile, Along kAlongA, Along kAlongB, class OperandA, class OperandB, class Epilogue>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    gemm_kernel(const Product<kMath, OperandA, OperandB, Epilogue> p) {
  multiply_tile<kMath, Tile, kAlongA, kAlongB>(p, int64_t(blockIdx.x), {blockIdx.y, gridDim.y});
}

constexpr int kReduceRows = 4, kReduceThreads = 128;

// What a block of a reduction consumes; its grid is region_grid.
__device__ __forceinline__ Region block_region(int64_t m, int64_t n, int region_cols) {
  const int64_t across = n > 0 ? ceil_div(n, region_cols) : 1;
  const int64_t row = int64_t(blockIdx.x) / across * kReduceRows, col = int64_t(blockIdx.x) % across * region_cols;
  return {row, col, int(m - row < kReduceRows ? m - row : kReduceRows),
          int(n - col < region_cols ? n - col : region_cols)};
}

template <class S, class Epilogue>
__global__ void __launch_bounds__(kReduceThreads)
    reduce_kernel(const Compute<S>* partial, int64_t m, int64_t n, int splits, int region_cols, Epilogue epilogue,
                  RowSums<S> row_sums) {
  const Region region = block_region(m, n, region_cols);
  epilogue.consume(
      PartialSums<Compute<S>>{partial + region.row * n + region.col, n, m * n, splits, partial_aligned(n, region_cols)},
      region);
  if (!row_sums.out || region.col != 0 || int(threadIdx.x) >= region.rows) return;
  double sum = 0;
  for (int s = 0; s < splits; ++s) sum += row_sums.partial[s * m + region.row + threadIdx.x];
  row_sums.out[region.row + threadIdx.x] = narrow<S>(Compute<S>(sum));
}

// A product that lies in memory.
template <class S>
struct Finished {
  const S* product;  // at the region's first element
  int64_t ld;
  bool aligned;

  __device__ Compute<S> operator()(int r, int l) const { return widen(product[r * ld + l]); }
  __device__ Staged<Compute<S>> staged(int cols) const { return {&shared_storage<Compute<S>>(), cols}; }
  __device__ void quad(int r, int l, int count, Compute<S> (&values)[kQuad]) const {
    load_run(product + r * ld + l, count, aligned, values);
  }
};

template <class S, class Epilogue>
__global__ void __launch_bounds__(kReduceThreads)
    finish_kernel(const S* product, int64_t m, int64_t n, int region_cols, bool aligned, Epilogue epilogue) {
  const Region region = block_region(m, n, region_cols);
  epilogue.consume(Finished<S>{product + region.row * n + region.col, n, aligned}, region);
}

// ---- the host's side ----

// Of maxout as many units as lanes, so that whole transactions are written, while the region fits shared memory.
inline int region_cols_of(int granule) {
  return granule == 1 ? 128 : granule * std::min(32, std::max(1, 1024 / granule));
}

template <class T>
size_t region_bytes(int region_cols) {
  return size_t(kReduceRows) * size_t(region_cols) * sizeof(T);
}

inline dim3 region_grid(int64_t m, int64_t n, int region_cols) {
  return dim3(unsigned(ceil_div(m, kReduceRows) * std::max<int64_t>(1, ceil_div(n, region_cols))));
}

// The epilogue alone, on a contiguous product.
template <class S, class Epilogue>
void finish_product(const Resources& run, const void* product, int64_t m, int64_t n, const Epilogue& epilogue) {
  if (m == 0 || n == 0) return;
  const int region_cols = region_cols_of(epilogue.granule());
  launch(run, finish_kernel<S, Epilogue>, region_grid(m, n, region_cols), dim3(kReduceThreads),
         region_bytes<Compute<S>>(region_cols), static_cast<const S*>(product), m, n, region_cols,
         quads_aligned<S>(product, n) && region_cols % kQuad == 0, epilogue);
}

template <Math kMath, class Tile, Along kAlongA, Along kAlongB, class P>
void launch_tiles(const Resources& run, P& p, int splits) {
  using S = Stored<kMath>;
  using T = Accumulated<kMath>;
  const int granule = p.epilogue.granule();
  const bool stays_together = granule <= Tile::kCols;
  p.tile_cols = stays_together ? Tile::kCols / granule * granule : Tile::kCols;
  const int64_t slices = ceil_div(p.k, kDepth<S>);
  p.slices_per_split = int(ceil_div(slices, splits));
  // every split has a slice, and there is one even where the inner dimension is empty
  splits = slices ? int(ceil_div(slices, p.slices_per_split)) : 1;
  // columns that a tile cannot hold together meet in the reduction
  const bool reduced = splits > 1 || !stays_together;
  const int forced = reduced && splits < 2 ? 2 : splits;
  using Epilogue = decltype(p.epilogue);
  if (!kFinishesSplits<Epilogue> || !stays_together) p.tickets = nullptr;
  if (reduced) {
    p.partial = scratch<T>(run, size_t(forced) * size_t(p.m) * size_t(p.n));
    if (p.row_sums.out) p.row_sums.partial = scratch<double>(run, size_t(forced) * size_t(p.m));
  }
  const int64_t tiles = ceil_div(p.m, Tile::kRows) * std::max<int64_t>(1, ceil_div(p.n, p.tile_cols));
  using Memory = BlockMemory<kMath, Tile, kAlongA, kAlongB>;
  launch(run, gemm_kernel<kMath, Tile, kAlongA, kAlongB, decltype(p.a), decltype(p.b), Epilogue>,
         dim3(unsigned(tiles), unsigned(forced)), dim3(Tile::kThreads), sizeof(Memory), p);
  if (!reduced || p.tickets) return;
  if constexpr (!kNeverReduced<Epilogue>) {
    const int region_cols = region_cols_of(granule);
    launch(run, reduce_kernel<S, Epilogue>, region_grid(p.m, p.n, region_cols), dim3(kReduceThreads),
           region_bytes<T>(region_cols), p.partial, p.m, p.n, forced, region_cols, p.epilogue, p.row_sums);
  }
}

template <Math kMath, class OperandA, class OperandB, class Epilogue>
Product<kMath, OperandA, OperandB, Epilogue> product(int64_t m, int64_t n, int64_t k, const OperandA& a,
                                                     const OperandB& b, const Epilogue& epilogue,
                                                     Stored<kMath>* row_sums) {
  return {m, n, k, a, b, epilogue, {row_sums, nullptr}, 0, 0, nullptr, nullptr};
}

template <Math kMath, Along kAlongA, Along kAlongB, class OperandA, class OperandB, class Epilogue>
void gemm(const Resources& run, int64_t m, int64_t n, int64_t k, const OperandA& a, const OperandB& b,
          const Epilogue& epilogue, Stored<kMath>* row_sums = nullptr) {
  using S = Stored<kMath>;
  if (m == 0 || (n == 0 && !row_sums)) return;
  constexpr bool kOnlySmall = kMath == Math::fp64;
  const Plan plan = plan_product(m, n, ceil_div(k, kDepth<S>), epilogue.granule(), kOnlySmall,
                                 sizeof(BlockMemory<kMath, LargeTile, kAlongA, kAlongB>));
  if constexpr (!kOnlySmall) {
    if (plan.tile != TileChoice::small) {
      auto p = product<kMath>(m, n, k, make_copied<S>(run, a), make_copied<S>(run, b), epilogue, row_sums);
      if (plan.tile == TileChoice::large)
        launch_tiles<kMath, LargeTile, kAlongA, kAlongB>(run, p, plan.splits);
      else
        launch_tiles<kMath, MediumTile, kAlongA, kAlongB>(run, p, plan.splits);
      return;
    }
  }
  auto p = product<kMath>(m, n, k, a, b, epilogue, row_sums);
  launch_tiles<kMath, SmallTile, kAlongA, kAlongB>(run, p, plan.splits);
}

}  // namespace pygan::cuda
