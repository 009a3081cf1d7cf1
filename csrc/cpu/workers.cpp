#include "workers.h"

#include <omp.h>

#include <atomic>

namespace pygan::cpu {

OpenMp::OpenMp(int threads) : Workers(omp_in_parallel() ? 1 : threads, 1e7) {}

void OpenMp::share(int64_t count, Call call, const void* f) const {
  std::atomic<int64_t> next{0};
#pragma omp parallel num_threads(threads)
  for (int64_t task = next++; task < count; task = next++) call(f, task, omp_get_thread_num());
}

}  // namespace pygan::cpu
