// Scratch memory that outlives a call: an op after the first one allocates nothing.
#pragma once

#include <cstddef>

#include "memory.h"

namespace pygan::cpu {

// 64-byte aligned scratch for the lifetime of the object. Two buffers per calling thread are kept and reused; a third
// workspace alive in the same thread, or one above kKept bytes, gets memory of its own.
// Throws std::bad_alloc.
class Workspace {
 public:
  explicit Workspace(size_t bytes);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  // The next `count` elements; the caller asked for enough, 64 bytes of slack per piece included.
  template <class T>
  T* take(size_t count) {
    T* piece = reinterpret_cast<T*>(next_);
    next_ += (count * sizeof(T) + 63) / 64 * 64;
    return piece;
  }

  template <class T>
  static size_t bytes_for(size_t count) {
    return (count * sizeof(T) + 63) / 64 * 64;
  }

  static constexpr size_t kKept = size_t(64) << 20;
  static constexpr int kKeptBuffers = 2;

 private:
  char* begin_;
  char* next_;
  int kept_ = 0;  // which of the kept buffers it is; kKeptBuffers: none
};

}  // namespace pygan::cpu
