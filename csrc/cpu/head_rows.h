// Rows of hidden activations against one weight vector: the discriminator's last layer, which has one output.
//
// A row is read from memory once: its logit, then, while it is in the first-level cache, its share of the gradient.
// Rows are handled in blocks whose borders depend on the shape alone, so that any number of threads gives the same
// bits.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "../core/gan_loss.h"
#include "simd.h"
#include "workers.h"

namespace pygan::cpu::PYGAN_ISA {

constexpr int64_t kBlockElements = 32768;  // of work for a thread, at least
constexpr int64_t kBlocks = 64;            // at most, each with sums of its own
constexpr int64_t kPanelElements = 2048;   // stay in the first-level cache
constexpr int64_t kPanelRows = 64;
constexpr int64_t kTogether = 4;  // rows that share a load of the weight

// f(block, begin, end) over rows of k elements.
struct Blocks {
  int64_t rows, size, count;

  Blocks(int64_t m, int64_t k) : rows(m) {
    const int64_t row = std::max<int64_t>(k, 1);
    size = std::max((kBlockElements + row - 1) / row, (m + kBlocks - 1) / kBlocks);
    count = (m + size - 1) / size;
  }

  // f(block, thread, first row, end) of every block; `elements` of the hidden activations are read.
  template <class F>
  void each(const Workers& workers, double elements, const F& f) const {
    constexpr double kCost = 40;  // of an element, in the time of a FLOP of a product
    workers.each(count, kCost * elements, [&](int64_t block, int thread) {
      f(block, thread, block * size, std::min(rows, (block + 1) * size));
    });
  }
};

inline int64_t panel_rows(int64_t k) {
  const int64_t fitting = kPanelElements / std::max<int64_t>(k, 1) / kTogether * kTogether;
  return std::clamp<int64_t>(fitting, kTogether, kPanelRows);
}

// Values in the type that is computed with: the array itself, or a copy of half-precision ones.
template <class S>
class Wide {
 public:
  using T = Compute<S>;

  const T* row(const S* in, int64_t n) {
    if constexpr (std::is_same_v<S, T>) {
      return in;
    } else {
      copy_.resize(size_t(n));
      load_row(in, n, copy_.data());
      return copy_.data();
    }
  }

 private:
  std::vector<T> copy_;
};

// Up to kPanelRows rows of hidden, in the type that is computed with.
template <class S>
class Panel {
 public:
  using T = Compute<S>;

  Panel(const Matrix& hidden, int64_t begin, int64_t count)
      : k_(hidden.cols), stride_(hidden.row_stride), data_(static_cast<const S*>(hidden.data) + begin * stride_) {
    if constexpr (!std::is_same_v<S, T>) {
      copy_.resize(size_t(count * k_));
      for (int64_t i = 0; i < count; ++i) load_row(data_ + i * stride_, k_, copy_.data() + i * k_);
    }
  }

  template <size_t N>
  std::array<const T*, N> rows(int64_t first) const {
    std::array<const T*, N> rows;
    for (size_t r = 0; r < N; ++r) {
      if constexpr (std::is_same_v<S, T>)
        rows[r] = data_ + (first + int64_t(r)) * stride_;
      else
        rows[r] = copy_.data() + (first + int64_t(r)) * k_;
    }
    return rows;
  }

 private:
  int64_t k_, stride_;
  const S* data_;
  std::vector<T> copy_;
};

// out[r] = bias + row r . weight
template <size_t N, class T>
void multiply(const std::array<const T*, N>& rows, const T* weight, int64_t k, T bias, T* out) {
  static_assert(N == 1 || N == 4);
  const T *x0 = rows[0], *x1 = rows[N > 1 ? 1 : 0], *x2 = rows[N > 2 ? 2 : 0], *x3 = rows[N > 3 ? 3 : 0];
  T sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
#pragma omp simd reduction(+ : sum0, sum1, sum2, sum3)
  for (int64_t j = 0; j < k; ++j) {
    sum0 += x0[j] * weight[j];
    if constexpr (N == 4) {
      sum1 += x1[j] * weight[j];
      sum2 += x2[j] * weight[j];
      sum3 += x3[j] * weight[j];
    }
  }
  const T sums[] = {sum0, sum1, sum2, sum3};
  for (size_t r = 0; r < N; ++r) out[r] = sums[r] + bias;
}

// sums[j] += the rows' factor * element j
template <size_t N, class T>
void accumulate(const std::array<const T*, N>& rows, const T* factors, int64_t k, T* sums) {
#pragma omp simd
  for (int64_t j = 0; j < k; ++j) {
    T sum = sums[j];
    for (size_t r = 0; r < N; ++r) sum += factors[r] * rows[r][j];
    sums[j] = sum;
  }
}

// f(rows of the panel, index of the first): four by four, then one by one.
template <class S, class F>
void each_group(const Panel<S>& panel, int64_t count, const F& f) {
  int64_t i = 0;
  for (; i + kTogether <= count; i += kTogether) f(panel.template rows<kTogether>(i), i);
  for (; i < count; ++i) f(panel.template rows<1>(i), i);
}

// Sums of each block, those of the columns and then that of the factors; added up in order.
template <class T>
class Sums {
 public:
  static size_t size(int64_t blocks, int64_t k) { return size_t(blocks * (k + 1)); }

  // parts: size(blocks, k) elements, or null where no sums are wanted.
  Sums(T* parts, int64_t blocks, int64_t k) : k_(k), blocks_(blocks), parts_(parts) {
    if (parts) std::fill_n(parts, size(blocks, k), T(0));
  }

  T* block(int64_t b) const { return parts_ ? parts_ + b * (k_ + 1) : nullptr; }

  void add_up(T* total) const {
    std::fill_n(total, k_ + 1, T(0));
    for (int64_t b = 0; b < blocks_; ++b)
      for (int64_t j = 0; j <= k_; ++j) total[j] += block(b)[j];
  }

 private:
  int64_t k_, blocks_;
  T* parts_;
};

template <class S>
void add_panel(const Panel<S>& panel, int64_t count, const Compute<S>* factors, int64_t k, Compute<S>* sums) {
  each_group(panel, count, [&](const auto& rows, int64_t i) { accumulate(rows, factors + i, k, sums); });
  for (int64_t i = 0; i < count; ++i) sums[k] += factors[i];
}

// Slopes of n logits of one term, and the sum of their values.
template <GanTerm Term, class T>
double term_of_rows(const T* logits, int64_t n, T smoothing, T scale, T* slopes) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    sum += double(game_term_value(Term, logits[i], smoothing));
    slopes[i] = scale * game_term_derivative(Term, logits[i], smoothing);
  }
  return sum;
}

template <class T>
double generated_rows(GanTerm term, const T* logits, int64_t n, T scale, T* slopes) {
  if (term == GanTerm::fake) return term_of_rows<GanTerm::fake>(logits, n, T(0), scale, slopes);
  if (term == GanTerm::minimax) return term_of_rows<GanTerm::minimax>(logits, n, T(0), scale, slopes);
  return term_of_rows<GanTerm::non_saturating>(logits, n, T(0), scale, slopes);
}

}  // namespace pygan::cpu::PYGAN_ISA
