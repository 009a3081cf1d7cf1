// One term of a loss: value, or derivative, in one pass over the logits.
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

// The parameter of the term at each logit: its target, or the one of all.
template <class S, GanTerm Term>
auto parameters_of(const GanLossTerm& term) {
  constexpr bool kTargeted = Term == GanTerm::cross_entropy || Term == GanTerm::probability;
  const S* targets = static_cast<const S*>(term.targets);
  const auto smoothing = Compute<S>(term.smoothing);
  return [=](int64_t i)
             __attribute__((always_inline)) { return kTargeted ? Compute<S>(widen(targets[i])) : smoothing; };
}

// out[i] = value, or out[i] + value. A condition inside the loop would keep it from becoming SIMD code.
template <class S, GanTerm Term>
void each_value(const GanLossTerm& term, bool accumulate, S* out, int threads) {
  using T = Compute<S>;
  const S* logits = static_cast<const S*>(term.logits);
  const auto parameter = parameters_of<S, Term>(term);
  const auto value = [=](T a, int64_t i)
                         __attribute__((always_inline)) { return gan_term_value(Term, a, parameter(i)); };
  parallel_chunks(term.n, threads, [=](int64_t begin, int64_t end) {
    if (!accumulate) return map_logits(logits, begin, end, out, value);
    map_logits(logits, begin, end, out,
               [=](T a, int64_t i) __attribute__((always_inline)) { return value(a, i) + T(widen(out[i])); });
  });
}

// Partial sums of fixed chunks, added in order: the same bits on any number of threads.
template <class S, GanTerm Term>
double sum_of_values(const GanLossTerm& term, int threads) {
  using T = Compute<S>;
  const S* logits = static_cast<const S*>(term.logits);
  const auto parameter = parameters_of<S, Term>(term);
  std::vector<double> partial(size_t((term.n + kGrain - 1) / kGrain), 0.0);
  parallel_chunks(term.n, threads, [&](int64_t begin, int64_t end) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; ++i) sum += double(gan_term_value(Term, T(widen(logits[i])), parameter(i)));
    partial[size_t(begin / kGrain)] = sum;
  });
  double total = 0;
  for (double sum : partial) total += sum;
  return total;
}

template <class S, GanTerm Term>
void backward(const GanLossTerm& term, Reduction reduction, const S* upstream, int threads) {
  using T = Compute<S>;
  const S* logits = static_cast<const S*>(term.logits);
  S* grad = static_cast<S*>(term.grad);
  const auto parameter = parameters_of<S, Term>(term);
  const T scale = reduction == Reduction::mean ? T(1.0 / double(term.n)) : T(1);
  const auto slope = [=](T a, int64_t i)
                         __attribute__((always_inline)) { return gan_term_derivative(Term, a, parameter(i)); };
  const bool each = reduction == Reduction::none;
  const T common = each ? T(0) : scale * T(widen(*upstream));
  parallel_chunks(term.n, threads, [=](int64_t begin, int64_t end) {
    if (!each)
      return map_logits(logits, begin, end, grad,
                        [=](T a, int64_t i) __attribute__((always_inline)) { return common * slope(a, i); });
    map_logits(logits, begin, end, grad,
               [=](T a, int64_t i) __attribute__((always_inline)) { return T(widen(upstream[i])) * slope(a, i); });
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
    case GanTerm::hinge_real:
      return f(std::integral_constant<GanTerm, GanTerm::hinge_real>());
    case GanTerm::hinge_fake:
      return f(std::integral_constant<GanTerm, GanTerm::hinge_fake>());
    case GanTerm::square_real:
      return f(std::integral_constant<GanTerm, GanTerm::square_real>());
    case GanTerm::square_fake:
      return f(std::integral_constant<GanTerm, GanTerm::square_fake>());
    case GanTerm::critic_real:
      return f(std::integral_constant<GanTerm, GanTerm::critic_real>());
    case GanTerm::critic_fake:
      return f(std::integral_constant<GanTerm, GanTerm::critic_fake>());
    case GanTerm::cross_entropy:
      return f(std::integral_constant<GanTerm, GanTerm::cross_entropy>());
    case GanTerm::probability:
      return f(std::integral_constant<GanTerm, GanTerm::probability>());
  }
}

}  // namespace

void gan_loss_forward(const GanLossForward& op) {
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    S* const out = static_cast<S*>(op.out);
    double total = 0;
    for (int i = 0; i < op.count; ++i) {
      const GanLossTerm& term = op.terms[i];
      for_term(term.term, [&](auto constant) {
        constexpr GanTerm kTerm = decltype(constant)::value;
        if (op.reduction == Reduction::none) return each_value<S, kTerm>(term, i > 0, out, op.run.threads);
        const double sum = sum_of_values<S, kTerm>(term, op.run.threads);
        total += op.reduction == Reduction::mean ? sum / double(term.n) : sum;
      });
    }
    if (op.reduction == Reduction::none) return;
    const Compute<S> value = Compute<S>(total);
    store_row(&value, 1, out);
  });
}

void gan_loss_backward(const GanLossBackward& op) {
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    for (int i = 0; i < op.count; ++i)
      for_term(op.terms[i].term, [&](auto constant) {
        backward<S, decltype(constant)::value>(op.terms[i], op.reduction, static_cast<const S*>(op.upstream),
                                               op.run.threads);
      });
  });
}

}  // namespace pygan::cpu::PYGAN_ISA
