// The log-density of a mixture of equal Gaussians, one about each sample: the squared distances are a product's tiles,
// and each tile leaves a maximum and a sum of exponentials a row. Nothing of the size rows x samples is kept.
#include <algorithm>
#include <limits>

#include "../core/math.h"
#include "../core/parzen.h"
#include "kernels.h"
#include "operands.h"
#include "workspace.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

constexpr int64_t kRowsAtOnce = 1024, kSamplesAtOnce = 16384;
constexpr int64_t kBlockRows = 64;  // of a pass over a whole matrix
constexpr int64_t kBlockCols = 64;
constexpr double kExponentialCost = 20;  // in the time of a FLOP of a product

// x - centre: distances do not change, and what cancels in |x|^2 - 2 x.s + |s|^2 becomes small.
template <class S>
class Centred : public Operand<Compute<S>> {
  using T = Compute<S>;

 public:
  Centred(const Matrix& x, const T* centre) : Operand<T>(true), x_(x, true), centre_(centre) {}

  void block(int64_t row, int rows, int64_t col, int cols, T* out, int64_t ld) const override {
    x_.block(row, rows, col, cols, out, ld);
    for (int r = 0; r < rows; ++r)
#pragma omp simd
      for (int c = 0; c < cols; ++c) out[r * ld + c] -= centre_[col + c];
  }

 private:
  const Dense<S> x_;
  const T* centre_;
};

// A tile of products becomes, for each of its rows, the largest of -|x - s|^2 / (2 sigma^2) and the sum of the
// exponentials of what they lie below it.
template <class T>
class LogSumExp : public Epilogue<T> {
 public:
  // half_x, half_s: half the squared norms of the rows, the latter padded to whole tiles; results (rows, panels).
  LogSumExp(const T* half_x, const T* half_s, T inverse_variance, int64_t panels, T* largest, T* sums)
      : half_x_(half_x),
        half_s_(half_s),
        inverse_variance_(inverse_variance),
        panels_(panels),
        largest_(largest),
        sums_(sums) {}

  void tile(T* c, int64_t i, int rows, int64_t j, int cols, int) override {
    for (int r = 0; r < rows; ++r) {
      const int64_t at = (i + r) * panels_ + j / kTileCols<T>;
      row(c + r * kTileCols<T>, half_x_[i + r], half_s_ + j, cols, largest_ + at, sums_ + at);
    }
  }

 private:
  void row(T* c, T half_x, const T* half_s, int cols, T* largest, T* sum) const {
    const T scale = inverse_variance_;
    for (int l = cols; l < kTileCols<T>; ++l) c[l] = -std::numeric_limits<T>::infinity();
    T top = -std::numeric_limits<T>::max();  // finite: from an infinite one, differences would be NaN
#pragma omp simd reduction(max : top)
    for (int l = 0; l < kTileCols<T>; ++l) {
      c[l] = (c[l] - half_x - half_s[l]) * scale;
      top = c[l] > top ? c[l] : top;
    }
    T total = 0;
#pragma omp simd reduction(+ : total)
    for (int l = 0; l < kTileCols<T>; ++l) total += exponential(c[l] - top);
    *largest = top, *sum = total;
  }

  const T *half_x_, *half_s_;
  T inverse_variance_;
  int64_t panels_;
  T *largest_, *sums_;
};

template <class S>
class Parzen {
  using T = Compute<S>;

 public:
  explicit Parzen(const ParzenLogLikelihood& op)
      : op_(op),
        workers_(op.run.threads),
        d_(op.x.cols),
        samples_(op.samples.rows),
        rows_at_once_(std::min(kRowsAtOnce, op.x.rows)),
        panels_((std::min(kSamplesAtOnce, samples_) + kTileCols<T> - 1) / kTileCols<T>),
        space_(Workspace::bytes_for<T>(d_) + Workspace::bytes_for<T>(samples_ + kTileCols<T>) +
               Workspace::bytes_for<T>(rows_at_once_) + 2 * Workspace::bytes_for<T>(rows_at_once_ * panels_) +
               Workspace::bytes_for<ExponentialSum>(rows_at_once_)) {
    centre_ = space_.template take<T>(d_);
    half_s_ = space_.template take<T>(samples_ + kTileCols<T>);
    half_x_ = space_.template take<T>(rows_at_once_);
    largest_ = space_.template take<T>(rows_at_once_ * panels_);
    sums_ = space_.template take<T>(rows_at_once_ * panels_);
    running_ = space_.template take<ExponentialSum>(rows_at_once_);
  }

  void run() {
    find_centre();
    half_norms(op_.samples, half_s_);
    std::fill_n(half_s_ + samples_, kTileCols<T>, T(0));
    for (int64_t row = 0; row < op_.x.rows; row += rows_at_once_) rows(row, std::min(rows_at_once_, op_.x.rows - row));
  }

 private:
  void rows(int64_t first, int64_t count) {
    const Matrix x = rows_of(op_.x, sizeof(S), first, count);
    half_norms(x, half_x_);
    std::fill_n(running_, count, ExponentialSum());
    for (int64_t s = 0; s < samples_; s += kSamplesAtOnce) against(x, s, std::min(kSamplesAtOnce, samples_ - s));
    const double log_scale = parzen_log_scale(samples_, d_, op_.sigma);
    for (int64_t i = 0; i < count; ++i) op_.out[first + i] = running_[i].log() - log_scale;
  }

  void against(const Matrix& x, int64_t first, int64_t count) {
    const Centred<S> a(x, centre_), b(rows_of(op_.samples, sizeof(S), first, count), centre_);
    const Operand<T>* operand = &b;
    const int64_t panels = (count + kTileCols<T> - 1) / kTileCols<T>;
    LogSumExp<T> epilogue(half_x_, half_s_ + first, T(1 / (op_.sigma * op_.sigma)), panels, largest_, sums_);
    gemm({x.rows, count, d_, &a, &operand, 1, &epilogue, nullptr, &workers_});
    workers_.each((x.rows + kBlockRows - 1) / kBlockRows, kExponentialCost * double(x.rows * panels),
                  [&](int64_t block, int) {
                    const int64_t end = std::min(x.rows, (block + 1) * kBlockRows);
                    for (int64_t i = block * kBlockRows; i < end; ++i)
                      for (int64_t p = 0; p < panels; ++p)
                        running_[i].add(double(largest_[i * panels + p]), double(sums_[i * panels + p]));
                  });
  }

  // The mean of the samples.
  void find_centre() {
    const Dense<S> samples(op_.samples, true);
    workers_.each((d_ + kBlockCols - 1) / kBlockCols, 2.0 * double(samples_ * d_), [&](int64_t block, int) {
      const int64_t col = block * kBlockCols;
      const int cols = int(std::min(kBlockCols, d_ - col));
      T values[kBlockRows * kBlockCols];
      double total[kBlockCols] = {};
      for (int64_t row = 0; row < samples_; row += kBlockRows) {
        const int rows = int(std::min(kBlockRows, samples_ - row));
        samples.block(row, rows, col, cols, values, kBlockCols);
        for (int r = 0; r < rows; ++r)
          for (int c = 0; c < cols; ++c) total[c] += double(values[r * kBlockCols + c]);
      }
      for (int c = 0; c < cols; ++c) centre_[col + c] = T(total[c] / double(samples_));
    });
  }

  // Half the squared norm of each row, the centre taken off.
  void half_norms(const Matrix& m, T* out) {
    const Centred<S> centred(m, centre_);
    workers_.each((m.rows + kBlockRows - 1) / kBlockRows, 3.0 * double(m.rows * d_), [&](int64_t block, int) {
      const int64_t row = block * kBlockRows;
      const int rows = int(std::min(kBlockRows, m.rows - row));
      T values[kBlockRows * kBlockCols];
      double total[kBlockRows] = {};
      for (int64_t col = 0; col < d_; col += kBlockCols) {
        const int cols = int(std::min(kBlockCols, d_ - col));
        centred.block(row, rows, col, cols, values, kBlockCols);
        for (int r = 0; r < rows; ++r) {
          T sum = 0;
#pragma omp simd reduction(+ : sum)
          for (int c = 0; c < cols; ++c) sum += values[r * kBlockCols + c] * values[r * kBlockCols + c];
          total[r] += double(sum);
        }
      }
      for (int r = 0; r < rows; ++r) out[row + r] = T(0.5 * total[r]);
    });
  }

  const ParzenLogLikelihood& op_;
  const OpenMp workers_;
  const int64_t d_, samples_, rows_at_once_, panels_;
  Workspace space_;
  T *centre_, *half_s_, *half_x_, *largest_, *sums_;
  ExponentialSum* running_;
};

}  // namespace

void parzen_log_likelihood(const ParzenLogLikelihood& op) {
  if (op.x.rows == 0) return;
  for_dtype(op.dtype, [&](auto* tag) { Parzen<std::remove_pointer_t<decltype(tag)>>(op).run(); });
}

}  // namespace pygan::cpu::PYGAN_ISA
