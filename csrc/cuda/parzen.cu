// The log-density of a mixture of equal Gaussians, one about each sample: the squared distances are a product's tiles,
// and each tile leaves a maximum and a sum of exponentials a row. Nothing of the size rows x samples is kept.
//
// Rows and samples go in chunks, copied with the samples' mean taken off: distances do not change, and what cancels in
// |x|^2 - 2 x.s + |s|^2 becomes small. The product is exact fp32 for fp32 and half types, fp64 for fp64, whatever the
// user allows to be rounded: at small sigma the exponents are large differences of it.
#include "../core/parzen.h"

#include <algorithm>
#include <limits>

#include "../core/math.h"
#include "backend.h"
#include "block_sum.h"
#include "elements.h"
#include "gemm.h"

namespace pygan::cuda {
namespace {

constexpr int kWarps = kThreads / kWarp;
constexpr int64_t kParts = 128;                      // of the samples' rows, in the sums of their columns
constexpr int64_t kRowsOfChunk = 8192;               // so that what the tiles leave stays small
constexpr int64_t kBytesOfChunk = 16 * 1024 * 1024;  // of the copies: two stay in the second-level cache
constexpr int kTogether = 4;                         // rows of a tile that a warp adds up at a time

// ---- the samples' mean ----

// The sums of 32 columns over a part of the rows.
template <class S>
__global__ void __launch_bounds__(kThreads)
    column_sums_kernel(const View<S> samples, int64_t rows_of_part, double* sums_of_parts) {
  auto& of_warps = shared_storage<double[kWarps][kWarp]>();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t col = int64_t(blockIdx.x) * kWarp + lane, first = int64_t(blockIdx.y) * rows_of_part;
  const int64_t end = first + rows_of_part < samples.rows ? first + rows_of_part : samples.rows;
  double sum = 0;
  if (col < samples.cols)
#pragma unroll 8
    for (int64_t row = first + warp; row < end; row += kWarps) sum += double(widen(*samples.at(row, col)));
  of_warps[warp][lane] = sum;
  __syncthreads();  // every warp's sums are there
  if (warp > 0 || col >= samples.cols) return;
  for (int w = 1; w < kWarps; ++w) sum += of_warps[w][lane];
  sums_of_parts[blockIdx.y * samples.cols + col] = sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    centre_kernel(const double* sums_of_parts, int64_t parts, int64_t rows, int64_t cols, T* centre) {
  for (int64_t col = first_item(); col < cols; col += item_stride()) {
    double sum = 0;
#pragma unroll 8
    for (int64_t part = 0; part < parts; ++part) sum += sums_of_parts[part * cols + col];
    centre[col] = T(sum / double(rows));
  }
}

// ---- rows without it ----

// Rows without the centre, `ld` apart, and half their squared norms; a warp a row.
template <class S>
__global__ void __launch_bounds__(kThreads)
    centred_kernel(const View<S> rows, const Compute<S>* centre, int64_t ld, Compute<S>* out, Compute<S>* half_norms) {
  using T = Compute<S>;
  constexpr int N = kVector<T>;
  const int64_t row = first_item() / kWarp;
  if (row >= rows.rows) return;
  double norm = 0;
#pragma unroll 4
  for (int64_t col = threadIdx.x % kWarp * N; col < rows.cols; col += kWarp * N) {
    T x[N], c[N];
    load_run(centre + col, rows.cols - col, true, c);
    if (rows.vectorised)
      load_run(rows.at(row, col), rows.cols - col, true, x);
    else
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = col + i < rows.cols ? widen(*rows.at(row, col + i)) : T(0);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      x[i] -= c[i];
      norm += double(x[i]) * double(x[i]);
    }
    store_run(x, rows.cols - col, true, out + row * ld + col);
  }
  norm = warp_sum(norm);
  if (threadIdx.x % kWarp == 0) half_norms[row] = T(0.5 * norm);
}

// ---- distances ----

// What a tile leaves of a row: the largest of its terms -|x - s|^2 / (2 sigma^2), and the sum of the exponentials of
// what they lie below it.
template <class T>
struct alignas(2 * sizeof(T)) Term {
  T largest, sum;
};

template <class T>
__device__ __forceinline__ T warp_largest(T value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const T other = __shfl_xor_sync(0xffffffff, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// Of a tile of products; a warp has kTogether rows at a time, its lanes the columns.
template <class T, class Tile>
struct LogSumExp {
  static constexpr int kEach = Tile::kCols / kWarp;
  static constexpr T kLowest = std::numeric_limits<T>::lowest(), kNone = -std::numeric_limits<T>::infinity();

  const T *half_x, *half_s;  // half the squared norms
  T inverse_variance;
  int64_t stride;
  Term<T>* terms;  // (tiles of a row, stride)

  int granule() const { return 1; }

  template <class Source>
  __device__ void consume(const Source& products, const Region& region) const {
    const int lane = threadIdx.x % kWarp;
    T half[kEach];
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int l = lane + j * kWarp;
      half[j] = l < region.cols ? half_s[region.col + l] : T(0);
    }
    for (int r = int(threadIdx.x) / kWarp * kTogether; r < region.rows; r += Tile::kThreads / kWarp * kTogether)
      rows(products, region, r, half);
  }

 private:
  template <class Source>
  __device__ __forceinline__ void rows(const Source& products, const Region& region, int first,
                                       const T (&half)[kEach]) const {
    const int lane = threadIdx.x % kWarp;
    T term[kTogether][kEach], top[kTogether], total[kTogether];
#pragma unroll
    for (int r = 0; r < kTogether; ++r) {
      const T half_row = first + r < region.rows ? half_x[region.row + first + r] : T(0);
      top[r] = kLowest;  // finite: from an infinite one, differences would be NaN
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        const int l = lane + j * kWarp;
        const T value = (products(first + r, l) - half_row - half[j]) * inverse_variance;
        term[r][j] = l < region.cols ? value : kNone;
        top[r] = term[r][j] > top[r] ? term[r][j] : top[r];
      }
    }
#pragma unroll
    for (int r = 0; r < kTogether; ++r) top[r] = warp_largest(top[r]);
#pragma unroll
    for (int r = 0; r < kTogether; ++r) {
      total[r] = 0;
#pragma unroll
      for (int j = 0; j < kEach; ++j) total[r] += exponential(term[r][j] - top[r]);
    }
#pragma unroll
    for (int r = 0; r < kTogether; ++r) total[r] = warp_sum(total[r]);
    Term<T> mine{top[0], total[0]};
#pragma unroll
    for (int r = 1; r < kTogether; ++r) mine = lane == r ? Term<T>{top[r], total[r]} : mine;
    if (lane < kTogether && first + lane < region.rows)
      terms[region.col / Tile::kCols * stride + region.row + first + lane] = mine;
  }
};

// Tiles of a row of a product, and a term of each.
template <class T>
struct Terms {
  Term<T>* term;  // (tiles, stride)
  int64_t tiles, stride;
};

// ---- the sums of rows ----

// The chunk's terms added to what was there before, those of 32 rows by a block: its warps have every eighth tile.
template <class T>
__global__ void __launch_bounds__(kThreads) merge_kernel(const Terms<T> terms, int64_t rows, bool first_chunk,
                                                         ExponentialSum* running, double log_scale, double* out) {
  auto& of_warps = shared_storage<ExponentialSum[kWarps][kWarp]>();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t row = int64_t(blockIdx.x) * kWarp + lane;
  ExponentialSum sum;
  if (row < rows)
#pragma unroll 1
    for (int64_t tile = warp; tile < terms.tiles; tile += kWarps) {
      const Term<T> term = terms.term[tile * terms.stride + row];
      sum.add(double(term.largest), double(term.sum));
    }
  of_warps[warp][lane] = sum;
  __syncthreads();  // every warp's sums are there
  if (warp > 0 || row >= rows) return;
  sum = first_chunk ? ExponentialSum() : running[row];
#pragma unroll 1
  for (int w = 0; w < kWarps; ++w) {
    const ExponentialSum of_warp = of_warps[w][lane];
    sum.add(of_warp.largest, of_warp.sum);
  }
  running[row] = sum;
  if (out) out[row] = sum.log() - log_scale;
}

// ---- the host's side ----

template <class S>
class Parzen {
  using T = Compute<S>;
  static constexpr Math kMath = std::is_same_v<T, double> ? Math::fp64 : Math::fp32;

  // Rows in scratch.
  struct Centred {
    T *rows, *half_norms;
  };

 public:
  explicit Parzen(const ParzenLogLikelihood& op)
      : op_(op),
        d_(op.x.cols),
        samples_(op.samples.rows),
        ld_(ceil_div(d_, kVector<T>) * kVector<T>),
        rows_at_once_(at_once(op.x.rows)),
        samples_at_once_(at_once(samples_)),
        centre_(scratch<T>(op.run, size_t(ld_))),
        x_(centred_rows(rows_at_once_)),
        s_(centred_rows(samples_at_once_)),
        terms_(scratch<Term<T>>(op.run, size_t(rows_at_once_ * ceil_div(samples_at_once_, SmallTile::kCols)))),
        running_(scratch<ExponentialSum>(op.run, size_t(rows_at_once_))) {}

  void run() {
    find_centre();
    for (int64_t row = 0; row < op_.x.rows; row += rows_at_once_) rows(row, std::min(rows_at_once_, op_.x.rows - row));
  }

 private:
  // Whole tiles, as many as may be copied together.
  int64_t at_once(int64_t rows) const {
    constexpr int64_t kTile = LargeTile::kRows;
    const int64_t fit = kBytesOfChunk / (ld_ * int64_t(sizeof(T))) / kTile * kTile;
    return std::min(ceil_div(rows, kTile) * kTile, std::clamp(fit, kTile, kRowsOfChunk));
  }

  Centred centred_rows(int64_t rows) const {
    return {scratch<T>(op_.run, size_t(rows * ld_)), scratch<T>(op_.run, size_t(rows))};
  }

  void rows(int64_t first, int64_t count) const {
    const Copied<T> x = copy(op_.x, first, count, x_);
    const double log_scale = parzen_log_scale(samples_, d_, op_.sigma);
    for (int64_t s = 0; s < samples_; s += samples_at_once_) {
      const Copied<T> samples = copy(op_.samples, s, std::min(samples_at_once_, samples_ - s), s_);
      const Terms<T> terms = against(x, samples);
      launch(op_.run, merge_kernel<T>, dim3(unsigned(ceil_div(count, kWarp))), dim3(kThreads),
             sizeof(ExponentialSum[kWarps][kWarp]), terms, count, s == 0, running_, log_scale,
             s + samples_at_once_ < samples_ ? nullptr : op_.out + first);
    }
  }

  Terms<T> against(const Copied<T>& x, const Copied<T>& samples) const {
    if constexpr (kMath != Math::fp64) {
      const size_t large_bytes = sizeof(BlockMemory<kMath, LargeTile, Along::inner, Along::inner>);
      const Plan plan = plan_product(x.rows, samples.rows, ceil_div(d_, kDepth<T>), 1, false, large_bytes);
      if (plan.tile == TileChoice::large) return against<LargeTile>(x, samples);
      if (plan.tile == TileChoice::medium) return against<MediumTile>(x, samples);
    }
    return against<SmallTile>(x, samples);
  }

  template <class Tile>
  Terms<T> against(const Copied<T>& x, const Copied<T>& samples) const {
    const LogSumExp<T, Tile> epilogue{x_.half_norms, s_.half_norms, T(1 / (op_.sigma * op_.sigma)), rows_at_once_,
                                      terms_};
    auto p = product<kMath>(x.rows, samples.rows, d_, x, samples, epilogue, nullptr);
    launch_tiles<kMath, Tile, Along::inner, Along::inner>(op_.run, p, 1);
    return {terms_, ceil_div(samples.rows, Tile::kCols), rows_at_once_};
  }

  Copied<T> copy(const Matrix& m, int64_t first, int64_t count, const Centred& to) const {
    launch(op_.run, centred_kernel<S>, dim3(unsigned(ceil_div(count, kWarps))), dim3(kThreads), 0,
           View<S>(rows_of(m, sizeof(S), first, count)), centre_, ld_, to.rows, to.half_norms);
    return {to.rows, count, d_, ld_};
  }

  void find_centre() const {
    const int64_t rows_of_part = ceil_div(ceil_div(samples_, kParts), kWarps) * kWarps;
    const int64_t parts = ceil_div(samples_, rows_of_part);
    double* const sums = scratch<double>(op_.run, size_t(parts * d_));
    launch(op_.run, column_sums_kernel<S>, dim3(unsigned(ceil_div(d_, kWarp)), unsigned(parts)), dim3(kThreads),
           sizeof(double[kWarps][kWarp]), View<S>(op_.samples), rows_of_part, sums);
    launch(op_.run, centre_kernel<T>, grid_of(d_), dim3(kThreads), 0, sums, parts, samples_, d_, centre_);
  }

  const ParzenLogLikelihood& op_;
  const int64_t d_, samples_, ld_, rows_at_once_, samples_at_once_;
  T* const centre_;
  const Centred x_, s_;
  Term<T>* const terms_;
  ExponentialSum* const running_;
};

}  // namespace

// Columns of a tile never have to meet those of another before they are consumed.
template <class T, class Tile>
constexpr bool kNeverReduced<LogSumExp<T, Tile>> = true;

void parzen_log_likelihood(const ParzenLogLikelihood& op) {
  if (op.x.rows == 0) return;
  for_dtype(op.dtype, [&](auto* tag) { Parzen<std::remove_pointer_t<decltype(tag)>>(op).run(); });
}

}  // namespace pygan::cuda
