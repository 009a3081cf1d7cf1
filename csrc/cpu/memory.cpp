#include "memory.h"

#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pygan::cpu {

void* allocate(size_t bytes) {
  constexpr size_t kLargePage = size_t(2) << 20;
  const size_t alignment = bytes < 4 * kLargePage ? 64 : kLargePage;
  const size_t size = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, size);
  if (!memory) throw std::bad_alloc();
#if defined(__linux__)
  if (alignment == kLargePage) madvise(memory, size, MADV_HUGEPAGE);  // a hint: it may be refused
#endif
  return memory;
}

}  // namespace pygan::cpu
