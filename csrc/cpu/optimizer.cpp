// One pass over a network's parameters: gradient in, state and parameter updated in place.
#include "kernels.h"
#include "optimizer_rows.h"
#include "parallel.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

constexpr int64_t kRun = 512;

// rule(param, grad, state1[, state2]) over every element; half types pass through fp32 buffers.
template <class S, class State, bool kTwoStates, class Rule>
void update(const ParamSlice* slices, int64_t count, int threads, const Rule& rule) {
  using T = Compute<S>;
  for (int64_t s = 0; s < count; ++s) {
    const ParamSlice& slice = slices[s];
    S* const params = static_cast<S*>(slice.param);
    const S* const grads = static_cast<const S*>(slice.grad);
    State* const state1 = static_cast<State*>(slice.state1);
    State* const state2 = static_cast<State*>(slice.state2);
    parallel_chunks(slice.n, threads, [=](int64_t begin, int64_t end) {
      if constexpr (std::is_same_v<S, T>) {
        update_run(rule, params + begin, grads + begin, state1 + begin, kTwoStates ? state2 + begin : nullptr,
                   end - begin);
      } else {
        T p[kRun], g[kRun], a[kRun], b[kRun] = {};
        for (int64_t i = begin; i < end; i += kRun) {
          const int64_t n = std::min(kRun, end - i);
          load_row(params + i, n, p), load_row(grads + i, n, g), load_row(state1 + i, n, a);
          if (kTwoStates) load_row(state2 + i, n, b);
          update_run(rule, p, g, a, b, n);
          store_row(p, n, params + i), store_row(a, n, state1 + i);
          if (kTwoStates) store_row(b, n, state2 + i);
        }
      }
    });
  }
}

template <bool kTwoStates, class Op>
void dispatch(const Op& op) {
  for_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    using T = Compute<S>;
    const auto rule = rule_of<T>(op);
    if (op.state_dtype == op.dtype)
      update<S, S, kTwoStates>(op.slices, op.count, op.run.threads, rule);
    else
      update<S, T, kTwoStates>(op.slices, op.count, op.run.threads, rule);
  });
}

}  // namespace

void momentum_update(const MomentumUpdate& op) { dispatch<false>(op); }
void adam_update(const AdamUpdate& op) { dispatch<true>(op); }

}  // namespace pygan::cpu::PYGAN_ISA
