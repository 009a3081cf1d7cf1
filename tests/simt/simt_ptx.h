// The emulated twins of cuda/ptx.h: the same names, on the CPU.
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda_runtime.h"

#pragma GCC visibility push(hidden)

namespace simt {

// What a lane brings to a matrix instruction.
struct MmaSlot {
  float* d;
  const uint32_t *a, *b;
};
struct LdmatrixSlot {
  uint32_t* registers;
  const void* row;
};

void combine_mma_tf32(uint32_t mask, void* const (&slots)[kWarp], Site site);
void combine_mma_bf16(uint32_t mask, void* const (&slots)[kWarp], Site site);
void combine_mma_f16(uint32_t mask, void* const (&slots)[kWarp], Site site);
void ldmatrix(uint32_t (&r)[4], const void* row, bool transposed, Site site);
void check_cp_async(const void* shared, const void* global, int bytes, Site site);

inline void mma(const char* name, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Combine combine,
                Site site) {
  MmaSlot slot{d, a, b};
  warp_collective(name, 0xffffffffu, &slot, combine, site);
}

}  // namespace simt

namespace pygan::cuda {

template <class T>
T& shared_storage(simt::Site site = simt::here()) {
  return *static_cast<T*>(simt::shared_memory(sizeof(T), alignof(T), site));
}

inline uint32_t shared_address(const void* pointer, simt::Site site = simt::here()) {
  return simt::shared_offset(pointer, 0, site);
}

// The source is read here, in the kernel's file, so that AddressSanitizer checks it.
__forceinline__ void cp_async_16(void* shared, const void* global, int bytes, simt::Site site = simt::here()) {
  simt::check_cp_async(shared, global, bytes, site);
  unsigned char source[16] = {};
  if (bytes > 0) std::memcpy(source, global, size_t(bytes));
  simt::async_copy(shared, source, site);
}

inline void cp_async_commit() { simt::async_commit(); }

template <int N>
void cp_async_wait() {
  simt::async_wait(N);
}

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, simt::Site site = simt::here()) {
  simt::ldmatrix(r, row, false, site);
}

inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, simt::Site site = simt::here()) {
  simt::ldmatrix(r, row, true, site);
}

// NaN first: the rounding would carry some of them to zero.
inline uint32_t to_tf32(float x) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffffffu;
  return (bits + 0x1000u) & 0xffffe000u;
}

inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], simt::Site site = simt::here()) {
  simt::mma("mma_tf32", d, a, b, simt::combine_mma_tf32, site);
}

inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], simt::Site site = simt::here()) {
  simt::mma("mma_bf16", d, a, b, simt::combine_mma_bf16, site);
}

inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], simt::Site site = simt::here()) {
  simt::mma("mma_f16", d, a, b, simt::combine_mma_f16, site);
}

}  // namespace pygan::cuda

#pragma GCC visibility pop
