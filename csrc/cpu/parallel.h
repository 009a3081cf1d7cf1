// Work in chunks whose borders do not depend on the number of threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace pygan::cpu {
namespace {  // each instruction set keeps its own copy

constexpr int64_t kGrain = 8192;

// f(begin, end) over [0, n) in chunks of kGrain elements.
template <class F>
inline void parallel_chunks(int64_t n, int threads, const F& f) {
  const int64_t chunks = (n + kGrain - 1) / kGrain;
  if (threads < 2 || chunks < 2) {
    for (int64_t c = 0; c < chunks; ++c) f(c * kGrain, std::min(n, (c + 1) * kGrain));
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t c = 0; c < chunks; ++c) f(c * kGrain, std::min(n, (c + 1) * kGrain));
}

}  // namespace
}  // namespace pygan::cpu
