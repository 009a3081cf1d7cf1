// Numbers below the smallest normal one cost a hundred times as much as others, and a GAN whose discriminator wins is
// full of them.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pygan::cpu {

// While it lives, the thread that made it takes them for zero and makes none.
class SubnormalsAreZero {
 public:
  SubnormalsAreZero() : before_(control()) { set_control(before_ | kBits); }
  ~SubnormalsAreZero() { set_control(before_); }
  SubnormalsAreZero(const SubnormalsAreZero&) = delete;
  SubnormalsAreZero& operator=(const SubnormalsAreZero&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr uint64_t kBits = 0x8040;  // flush to zero, denormals are zero
  static uint64_t control() { return _mm_getcsr(); }
  static void set_control(uint64_t bits) { _mm_setcsr(static_cast<unsigned>(bits)); }
#elif defined(__aarch64__)
  static constexpr uint64_t kBits = uint64_t(1) << 24;
  static uint64_t control() {
    uint64_t bits;
    asm volatile("mrs %0, fpcr" : "=r"(bits));
    return bits;
  }
  static void set_control(uint64_t bits) { asm volatile("msr fpcr, %0" : : "r"(bits)); }
#else
  static constexpr uint64_t kBits = 0;
  static uint64_t control() { return 0; }
  static void set_control(uint64_t) {}
#endif

  const uint64_t before_;
};

}  // namespace pygan::cpu
