// Memory that is aligned to cache lines, and large pieces of it to large pages.
#pragma once

#include <cstddef>
#include <cstdlib>

namespace pygan::cpu {

// 64-byte aligned memory for std::free; on the system's large pages, where it is large and there are such.
// Throws std::bad_alloc.
void* allocate(size_t bytes);

// Such memory for a vector.
template <class T>
struct Allocator {
  using value_type = T;
  Allocator() = default;
  template <class U>
  Allocator(const Allocator<U>&) {}
  T* allocate(size_t count) { return static_cast<T*>(pygan::cpu::allocate(count * sizeof(T))); }
  void deallocate(T* memory, size_t) { std::free(memory); }
  bool operator==(const Allocator&) const { return true; }
  bool operator!=(const Allocator&) const { return false; }
};

}  // namespace pygan::cpu
