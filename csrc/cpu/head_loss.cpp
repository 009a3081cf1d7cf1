// The discriminator's last layer with its loss: logits, loss, its derivative and the weight's gradient in one pass.
//
// A row is read from memory once: its logit, then, while it is in the first-level cache, its share of the gradient.
// Rows are handled in blocks whose borders depend on the shape alone, so that any number of threads gives the same
// bits.
#include <array>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "simd.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

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

  template <class F>
  void each(int threads, const F& f) const {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && count > 1)
    for (int64_t b = 0; b < count; ++b) f(b, b * size, std::min(rows, (b + 1) * size));
  }
};

int64_t panel_rows(int64_t k) {
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
  Sums(int64_t blocks, int64_t k, T* total) : k_(k), total_(total) {
    if (total_) parts_.assign(size_t(blocks * (k + 1)), T(0));
  }

  bool wanted() const { return total_; }
  T* block(int64_t b) { return parts_.data() + b * (k_ + 1); }

  void finish() {
    if (!total_) return;
    std::fill_n(total_, k_ + 1, T(0));
    for (size_t start = 0; start < parts_.size(); start += size_t(k_ + 1))
      for (int64_t j = 0; j <= k_; ++j) total_[j] += parts_[start + size_t(j)];
  }

 private:
  int64_t k_;
  T* total_;
  std::vector<T> parts_;
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
    sum += double(gan_term_value(Term, logits[i], smoothing));
    slopes[i] = scale * gan_term_derivative(Term, logits[i], smoothing);
  }
  return sum;
}

template <class T>
double generated_rows(GanTerm term, const T* logits, int64_t n, T scale, T* slopes) {
  if (term == GanTerm::fake) return term_of_rows<GanTerm::fake>(logits, n, T(0), scale, slopes);
  if (term == GanTerm::minimax) return term_of_rows<GanTerm::minimax>(logits, n, T(0), scale, slopes);
  return term_of_rows<GanTerm::non_saturating>(logits, n, T(0), scale, slopes);
}

struct Losses {
  double real = 0, generated = 0;
};

template <class S>
struct Forward {
  using T = Compute<S>;

  const HeadLossForward& op;
  const int64_t m = op.hidden.rows, k = op.hidden.cols, real_rows = op.real_rows;
  Wide<S> wide_weight{};
  const T* weight = wide_weight.row(static_cast<const S*>(op.weight), k);
  const T bias = op.bias ? T(widen(*static_cast<const S*>(op.bias))) : T(0);
  const T real_scale = T(1.0 / double(real_rows)), generated_scale = T(1.0 / double(m - real_rows));

  void panel(int64_t begin, int64_t count, T* sums, Losses& losses) const {
    const Panel<S> rows(op.hidden, begin, count);
    T logits[kPanelRows];
    T* const slopes = static_cast<T*>(op.slopes) + begin;
    each_group(rows, count, [&](const auto& some, int64_t i) { multiply(some, weight, k, bias, logits + i); });
    store_row(logits, count, static_cast<S*>(op.logits) + begin);
    const int64_t real = std::clamp<int64_t>(real_rows - begin, 0, count);
    losses.real += term_of_rows<GanTerm::real>(logits, real, T(op.smoothing), real_scale, slopes);
    losses.generated += generated_rows(op.generated, logits + real, count - real, generated_scale, slopes + real);
    if (sums) add_panel(rows, count, slopes, k, sums);
  }

  double mean(const std::vector<Losses>& parts) const {
    Losses total;
    for (const Losses& part : parts) total.real += part.real, total.generated += part.generated;
    const double generated = total.generated / double(m - real_rows);
    return op.generated == GanTerm::fake ? total.real / double(real_rows) + generated : generated;
  }

  void run() const {
    const Blocks blocks(m, k);
    Sums<T> sums(blocks.count, k, static_cast<T*>(op.sums));
    std::vector<Losses> losses(size_t(blocks.count));
    const int64_t step = panel_rows(k);
    blocks.each(op.run.threads, [&](int64_t b, int64_t begin, int64_t end) {
      T* const mine = sums.wanted() ? sums.block(b) : nullptr;
      for (int64_t i = begin; i < end; i += step) panel(i, std::min(step, end - i), mine, losses[size_t(b)]);
    });
    sums.finish();
    const T value = T(mean(losses));
    store_row(&value, 1, static_cast<S*>(op.loss));
  }
};

template <class S>
struct Backward {
  using T = Compute<S>;

  const HeadLossBackward& op;
  const int64_t m = op.hidden.rows, k = op.hidden.cols;
  const T upstream = op.grad_loss ? T(widen(*static_cast<const S*>(op.grad_loss))) : T(0);
  std::vector<T> factors = std::vector<T>(size_t(m), T(0));

  void find_factors() {
    if (op.grad_logits) load_row(static_cast<const S*>(op.grad_logits), m, factors.data());
    const T* slopes = static_cast<const T*>(op.slopes);
    if (op.grad_loss)
      for (int64_t i = 0; i < m; ++i) factors[size_t(i)] += upstream * slopes[i];
  }

  void write_grad_hidden(const Blocks& blocks) const {
    Wide<S> wide;
    const T* weight = wide.row(static_cast<const S*>(op.weight), k);
    S* const out = static_cast<S*>(op.grad_hidden);
    blocks.each(op.run.threads, [&](int64_t, int64_t begin, int64_t end) {
      std::vector<T> row(std::is_same_v<S, T> ? 0 : size_t(k));
      for (int64_t i = begin; i < end; ++i) {
        const T factor = factors[size_t(i)];
        T* target;
        if constexpr (std::is_same_v<S, T>)
          target = out + i * k;
        else
          target = row.data();
#pragma omp simd
        for (int64_t j = 0; j < k; ++j) target[j] = factor * weight[j];
        if constexpr (!std::is_same_v<S, T>) store_row(target, k, out + i * k);
      }
    });
  }

  // e^T . [hidden, 1]: from the forward pass where that is all there is, else in a pass of its own.
  std::vector<T> weight_gradient(const Blocks& blocks) const {
    std::vector<T> total(size_t(k + 1));
    if (op.sums && !op.grad_logits) {
      for (int64_t j = 0; j <= k; ++j) total[size_t(j)] = upstream * static_cast<const T*>(op.sums)[j];
      return total;
    }
    Sums<T> sums(blocks.count, k, total.data());
    const int64_t step = panel_rows(k);
    blocks.each(op.run.threads, [&](int64_t b, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i += step) {
        const int64_t count = std::min(step, end - i);
        add_panel(Panel<S>(op.hidden, i, count), count, factors.data() + i, k, sums.block(b));
      }
    });
    sums.finish();
    return total;
  }

  void run() {
    const Blocks blocks(m, k);
    find_factors();
    if (op.grad_hidden) write_grad_hidden(blocks);
    if (!op.grad_weight && !op.grad_bias) return;
    const std::vector<T> total = weight_gradient(blocks);
    if (op.grad_weight) store_row(total.data(), k, static_cast<S*>(op.grad_weight));
    if (op.grad_bias) store_row(total.data() + k, 1, static_cast<S*>(op.grad_bias));
  }
};

}  // namespace

void head_loss_forward(const HeadLossForward& op) {
  for_dtype(op.dtype, [&](auto* tag) { Forward<std::remove_pointer_t<decltype(tag)>>{op}.run(); });
}

void head_loss_backward(const HeadLossBackward& op) {
  for_dtype(op.dtype, [&](auto* tag) { Backward<std::remove_pointer_t<decltype(tag)>>{op}.run(); });
}

}  // namespace pygan::cpu::PYGAN_ISA
