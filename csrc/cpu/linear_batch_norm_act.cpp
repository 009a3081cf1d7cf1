// act(batch_norm(x W^T + b)) and its backward. The thread that finishes a panel of the product's columns takes its
// statistics and normalises it there and then, from the cache.
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "epilogues.h"
#include "kernels.h"
#include "operands.h"
#include "workspace.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

// Row i of a panel of columns, in the type that is computed with.
template <class S>
class Columns {
  using T = Compute<S>;

 public:
  Columns(const void* data, int64_t ld, int64_t j) : at_(static_cast<const S*>(data) + j), ld_(ld) {}

  const T* row(int64_t i, int cols, T* buffer) const {
    if constexpr (std::is_same_v<S, T>) {
      return at_ + i * ld_;
    } else {
      load_row(at_ + i * ld_, cols, buffer);
      return buffer;
    }
  }

 private:
  const S* at_;
  int64_t ld_;
};

// Calls add(i, sums) for each of m rows; `count` sums of a column each. Runs of 32 rows are added up in double.
template <class T, int kCount, class F>
void sum_rows(int64_t m, double (*sums)[kTileCols<T>], const F& add) {
  constexpr int64_t kRun = 32;
  for (int s = 0; s < kCount; ++s) std::fill_n(sums[s], kTileCols<T>, 0.0);
  for (int64_t first = 0; first < m; first += kRun) {
    T run[kCount][kTileCols<T>] = {};
    for (int64_t i = first; i < std::min(m, first + kRun); ++i) add(i, run);
    for (int s = 0; s < kCount; ++s)
      for (int l = 0; l < kTileCols<T>; ++l) sums[s][l] += double(run[s][l]);
  }
}

template <class T>
T entry(const void* vector, int64_t j, double otherwise) {
  return vector ? static_cast<const T*>(vector)[j] : T(otherwise);
}

// Calls f with the number of a panel's columns, as a constant where it is a whole panel.
template <class T, class F>
void for_columns(int cols, const F& f) {
  if (cols == kTileCols<T>)
    f(std::integral_constant<int, kTileCols<T>>{});
  else
    f(cols);
}

// Stores the product with its bias, and normalises each panel of columns when all its rows are there.
template <class S>
class NormalizePanels : public Epilogue<Compute<S>> {
  using T = Compute<S>;
  static constexpr int kC = kTileCols<T>;

 public:
  NormalizePanels(const LinearBatchNormForward& op, const T* bias)
      : op_(op),
        bias_(bias),
        m_(op.x.rows),
        n_(op.weight.rows),
        h_(static_cast<S*>(op.h ? op.h : op.y)),
        done_(size_t(panels())) {}

  int64_t panels() const { return (n_ + kC - 1) / kC; }

  void tile(T* c, int64_t i, int rows, int64_t j, int cols, int) override {
    add_bias(c, kC, rows, j, cols);
    store_tile(c, rows, cols, h_ + i * n_ + j, n_);
    // acquire: the rows that other threads have stored are seen by the one that is last
    if (done_[size_t(j / kC)].fetch_add(rows, std::memory_order_acq_rel) + rows == m_) normalize(j);
  }

  bool takes_rows() const override { return true; }
  void whole_rows(T* c, int64_t ld, int64_t i, int rows) override {
    add_bias(c, ld, rows, 0, n_);
    for (int r = 0; r < rows; ++r) store_row(c + r * ld, n_, h_ + (i + r) * n_);
  }

  // What came in whole rows.
  void normalize_rest(const Workers& workers) {
    if (m_ == 0 || n_ == 0 || done_[0] == m_) return;
    workers.each(panels(), 20.0 * double(m_ * n_), [this](int64_t panel, int) { normalize(panel * kC); });
  }

 private:
  void add_bias(T* c, int64_t ld, int rows, int64_t j, int64_t cols) const {
    for (int r = 0; bias_ && r < rows; ++r)
#pragma omp simd
      for (int64_t l = 0; l < cols; ++l) c[r * ld + l] += bias_[j + l];
  }

  void normalize(int64_t j) const {
    for_columns<T>(int(std::min<int64_t>(kC, n_ - j)), [&](auto cols) {
      T mean[kC] = {}, inverse[kC] = {};
      statistics(j, cols, mean, inverse);
      for_activation(op_.activation, [&](auto tag) { write<decltype(tag)::kValue>(j, cols, mean, inverse); });
    });
  }

  template <class Cols>
  void statistics(int64_t j, Cols cols, T* mean, T* inverse) const {
    double variance[kC];
    if (op_.given_mean) {
      for (int l = 0; l < cols; ++l) {
        mean[l] = entry<T>(op_.given_mean, j + l, 0);
        variance[l] = double(entry<T>(op_.given_variance, j + l, 1));
      }
    } else {
      const Columns<S> h(h_, n_, j);
      double sums[1][kC];
      T buffer[kC];
      sum_rows<T, 1>(m_, sums, [&](int64_t i, T(*run)[kC]) {
        const T* row = h.row(i, cols, buffer);
#pragma omp simd
        for (int l = 0; l < cols; ++l) run[0][l] += row[l];
      });
      for (int l = 0; l < cols; ++l) mean[l] = T(sums[0][l] / double(m_));
      sum_rows<T, 1>(m_, sums, [&](int64_t i, T(*run)[kC]) {
        const T* row = h.row(i, cols, buffer);
#pragma omp simd
        for (int l = 0; l < cols; ++l) run[0][l] += (row[l] - mean[l]) * (row[l] - mean[l]);
      });
      for (int l = 0; l < cols; ++l) {
        variance[l] = sums[0][l] / double(m_);
        static_cast<T*>(op_.variance)[j + l] = T(sums[0][l] / double(m_ - 1));
      }
    }
    for (int l = 0; l < cols; ++l) {
      inverse[l] = T(1 / std::sqrt(variance[l] + op_.eps));
      static_cast<T*>(op_.mean)[j + l] = mean[l];
      static_cast<T*>(op_.inverse)[j + l] = inverse[l];
    }
  }

  template <Activation A, class Cols>
  void write(int64_t j, Cols cols, const T* mean, const T* inverse) const {
    T scale[kC] = {}, shift[kC] = {}, buffer[kC];
    for (int l = 0; l < cols; ++l) {
      scale[l] = entry<T>(op_.gamma, j + l, 1) * inverse[l];
      shift[l] = entry<T>(op_.beta, j + l, 0);
    }
    const Columns<S> h(h_, n_, j);
    const T slope = T(op_.slope);
    for (int64_t i = 0; i < m_; ++i) {
      const T* row = h.row(i, cols, buffer);
      T out[kC];
#pragma omp simd
      for (int l = 0; l < cols; ++l) out[l] = activate<A>((row[l] - mean[l]) * scale[l] + shift[l], slope);
      store_row(out, cols, static_cast<S*>(op_.y) + i * n_ + j);
    }
  }

  const LinearBatchNormForward& op_;
  const T* bias_;
  const int64_t m_, n_;
  S* h_;
  std::vector<std::atomic<int64_t>> done_;  // rows, of each panel
};

template <class S>
void forward(const LinearBatchNormForward& op) {
  using T = Compute<S>;
  const OpenMp workers(op.run.threads);
  PaddedBias<S> bias(op.bias, op.weight.rows);
  NormalizePanels<S> epilogue(op, bias.values());
  if (op.has_product) return epilogue.normalize_rest(workers);
  const Dense<S> x = dense<S>(op.x, true), weight = dense<S>(op.weight, true);
  const Operand<T>* b = &weight;
  gemm({op.x.rows, op.weight.rows, op.x.cols, &x, &b, 1, &epilogue, nullptr, &workers});
  epilogue.normalize_rest(workers);
}

// The gradient of h, and those of gamma and beta, of the columns from j on.
template <class S, Activation A, class Cols>
void panel_gradient(const LinearBatchNormBackward& op, int64_t j, Cols cols) {
  using T = Compute<S>;
  constexpr int kC = kTileCols<T>;
  const int64_t m = op.x.rows, n = op.weight.rows;
  const Columns<S> grad_y(op.grad_y, n, j), h(op.h, n, j), y(op.y, n, j);
  const T* mean = static_cast<const T*>(op.mean) + j;
  const T* inverse = static_cast<const T*>(op.inverse) + j;
  const T slope = T(op.slope);
  double sums[2][kC];
  T buffers[3][kC];
  const auto at_row = [&](int64_t i, const auto& f) {
    const T *g_row = grad_y.row(i, cols, buffers[0]), *h_row = h.row(i, cols, buffers[1]),
            *y_row = y.row(i, cols, buffers[2]);
#pragma omp simd
    for (int l = 0; l < cols; ++l)
      f(l, times_derivative<A>(g_row[l], y_row[l], slope), (h_row[l] - mean[l]) * inverse[l]);
  };
  sum_rows<T, 2>(m, sums, [&](int64_t i, T(*run)[kC]) {
    at_row(i, [&](int l, T g, T z) {
      run[0][l] += g;
      run[1][l] += g * z;
    });
  });
  T scale[kC] = {}, mean_g[kC] = {}, mean_gz[kC] = {};
  for (int l = 0; l < cols; ++l) {
    static_cast<T*>(op.grad_beta)[j + l] = T(sums[0][l]);
    static_cast<T*>(op.grad_gamma)[j + l] = T(sums[1][l]);
    scale[l] = entry<T>(op.gamma, j + l, 1) * inverse[l];
    mean_g[l] = op.batch_statistics ? T(sums[0][l] / double(m)) : T(0);
    mean_gz[l] = op.batch_statistics ? T(sums[1][l] / double(m)) : T(0);
  }
  for (int64_t i = 0; i < m; ++i) {
    T out[kC];
    at_row(i, [&](int l, T g, T z) { out[l] = scale[l] * (g - mean_g[l] - z * mean_gz[l]); });
    store_row(out, cols, static_cast<S*>(op.grad_h) + i * n + j);
  }
}

template <class S>
void backward(const LinearBatchNormBackward& op) {
  using T = Compute<S>;
  constexpr int kC = kTileCols<T>;
  const int64_t m = op.x.rows, n = op.weight.rows;
  const OpenMp workers(op.run.threads);
  workers.each((n + kC - 1) / kC, 30.0 * double(m * n), [&](int64_t panel, int) {
    for_columns<T>(int(std::min<int64_t>(kC, n - panel * kC)), [&](auto cols) {
      for_activation(op.activation, [&](auto tag) { panel_gradient<S, decltype(tag)::kValue>(op, panel * kC, cols); });
    });
  });
  // what is taken off by the batch's mean does not change the result
  if (op.grad_bias && op.batch_statistics) std::memset(op.grad_bias, 0, size_t(n) * sizeof(S));
  const Matrix grad_h = {op.grad_h, m, n, n, 1};
  layer_backward<S>(
      {op.x, op.weight, {}, op.grad_x, op.grad_weight, op.batch_statistics ? nullptr : op.grad_bias, &workers},
      Dense<S>(grad_h, true), Dense<S>(grad_h, false));
}

}  // namespace

void linear_batch_norm_act_forward(const LinearBatchNormForward& op) {
  for_dtype(op.dtype, [&](auto* tag) { forward<std::remove_pointer_t<decltype(tag)>>(op); });
}

void linear_batch_norm_act_backward(const LinearBatchNormBackward& op) {
  for_dtype(op.dtype, [&](auto* tag) { backward<std::remove_pointer_t<decltype(tag)>>(op); });
}

}  // namespace pygan::cpu::PYGAN_ISA
