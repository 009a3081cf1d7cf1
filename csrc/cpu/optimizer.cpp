// One pass over a network's parameters: gradient in, state and parameter updated in place.
#include "../core/optimizer.h"

#include <cmath>

#include "kernels.h"
#include "parallel.h"
#include "simd.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

constexpr int64_t kRun = 512;

// rule(param, grad, state1, state2) over every element; half types pass through fp32 buffers.
template <class S, class State, class Rule>
void update(const ParamSlice* slices, int64_t count, int threads, const Rule& rule) {
  using T = Compute<S>;
  for (int64_t s = 0; s < count; ++s) {
    const ParamSlice& slice = slices[s];
    S* param = static_cast<S*>(slice.param);
    const S* grad = static_cast<const S*>(slice.grad);
    State* state1 = static_cast<State*>(slice.state1);
    State* state2 = static_cast<State*>(slice.state2);
    parallel_chunks(slice.n, threads, [&](int64_t begin, int64_t end) {
      if constexpr (std::is_same_v<S, T>) {
        for (int64_t i = begin; i < end; ++i) rule(param + i, grad[i], state1 + i, state2 ? state2 + i : nullptr);
      } else {
        T p[kRun], g[kRun], a[kRun], b[kRun] = {};
        for (int64_t i = begin; i < end; i += kRun) {
          const int64_t n = std::min(kRun, end - i);
          load_row(param + i, n, p), load_row(grad + i, n, g), load_row(state1 + i, n, a);
          if (state2) load_row(state2 + i, n, b);
          for (int64_t j = 0; j < n; ++j) rule(p + j, g[j], a + j, b + j);
          store_row(p, n, param + i), store_row(a, n, state1 + i);
          if (state2) store_row(b, n, state2 + i);
        }
      }
    });
  }
}

template <class Op, class MakeRule>
void dispatch(const Op& op, const MakeRule& make_rule) {
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    using T = Compute<S>;
    const auto rule = make_rule(T());
    if (op.state_dtype == op.dtype)
      update<S, S>(op.slices, op.count, op.threads, rule);
    else
      update<S, T>(op.slices, op.count, op.threads, rule);
  });
}

}  // namespace

void momentum_update(const MomentumUpdate& op) {
  dispatch(op, [&](auto t) {
    using T = decltype(t);
    const Momentum<T> rule{T(op.lr), T(op.momentum)};
    return [rule](T* p, T g, T* velocity, T*) { rule(p, g, velocity); };
  });
}

void adam_update(const AdamUpdate& op) {
  dispatch(op, [&](auto t) {
    using T = decltype(t);
    const double correction1 = 1 - std::pow(op.beta1, double(op.step));
    const double correction2 = 1 - std::pow(op.beta2, double(op.step));
    const Adam<T> rule{T(op.lr / correction1), T(1 / std::sqrt(correction2)), T(op.beta1), T(op.beta2), T(op.eps)};
    return [rule](T* p, T g, T* m, T* v) { rule(p, g, m, v); };
  });
}

}  // namespace pygan::cpu::PYGAN_ISA
