// One term of the minimax loss: value, or derivative, in one pass over the logits.
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "simd.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

constexpr int64_t kRun = 512;

// f(logit, index) over [begin, end), written to out in lanes.
template <class S, class F>
void map_logits(const S* logits, int64_t begin, int64_t end, S* out, const F& f) {
  using T = Compute<S>;
  T values[kRun];
  for (int64_t i = begin; i < end; i += kRun) {
    const int64_t n = std::min(kRun, end - i);
    load_row(logits + i, n, values);
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) values[j] = f(values[j], i + j);
    store_row(values, n, out + i);
  }
}

template <class S, GanTerm Term>
void forward(const GanLossForward& op) {
  using T = Compute<S>;
  const S* logits = static_cast<const S*>(op.logits);
  const T smoothing = T(op.smoothing);
  if (op.reduction == Reduction::none) {
    S* out = static_cast<S*>(op.out);
    const bool accumulate = op.accumulate;
    parallel_chunks(op.n, op.threads, [=](int64_t begin, int64_t end) {
      map_logits(logits, begin, end, out, [=](T a, int64_t i) {
        return gan_term_value(Term, a, smoothing) + (accumulate ? T(widen(out[i])) : T(0));
      });
    });
    return;
  }
  // partial sums of fixed chunks, added in order: the same bits on any number of threads
  std::vector<double> partial(size_t((op.n + kGrain - 1) / kGrain), 0.0);
  parallel_chunks(op.n, op.threads, [&](int64_t begin, int64_t end) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; ++i) sum += double(gan_term_value(Term, T(widen(logits[i])), smoothing));
    partial[size_t(begin / kGrain)] = sum;
  });
  double total = 0;
  for (double sum : partial) total += sum;
  *op.total = total;
}

template <class S, GanTerm Term>
void backward(const GanLossBackward& op) {
  using T = Compute<S>;
  const S* logits = static_cast<const S*>(op.logits);
  const S* upstream = static_cast<const S*>(op.upstream);
  S* grad = static_cast<S*>(op.grad);
  const T smoothing = T(op.smoothing);
  const T scale = op.reduction == Reduction::mean ? T(1.0 / double(op.n)) : T(1);
  const bool each = op.reduction == Reduction::none;
  const T common = each ? T(0) : T(widen(*upstream));
  parallel_chunks(op.n, op.threads, [=](int64_t begin, int64_t end) {
    map_logits(logits, begin, end, grad, [=](T a, int64_t i) {
      return scale * (each ? T(widen(upstream[i])) : common) * gan_term_derivative(Term, a, smoothing);
    });
  });
}

// Calls f with the term as a compile-time constant.
template <class F>
void for_term(GanTerm term, const F& f) {
  switch (term) {
    case GanTerm::real:
      return f(std::integral_constant<GanTerm, GanTerm::real>());
    case GanTerm::fake:
      return f(std::integral_constant<GanTerm, GanTerm::fake>());
    case GanTerm::minimax:
      return f(std::integral_constant<GanTerm, GanTerm::minimax>());
    case GanTerm::non_saturating:
      return f(std::integral_constant<GanTerm, GanTerm::non_saturating>());
  }
}

}  // namespace

void gan_loss_forward(const GanLossForward& op) {
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    for_term(op.term, [&](auto term) { forward<S, decltype(term)::value>(op); });
  });
}

void gan_loss_backward(const GanLossBackward& op) {
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    for_term(op.term, [&](auto term) { backward<S, decltype(term)::value>(op); });
  });
}

}  // namespace pygan::cpu::PYGAN_ISA
