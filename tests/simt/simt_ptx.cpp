#include "simt_ptx.h"

#include "../../csrc/core/half.h"

namespace simt {
namespace {

// How a 32-bit register of a fragment holds elements of the matrix.
struct Tf32 {
  static constexpr int kPerRegister = 1;
  // The tensor core does not look at the low 13 bits. A NaN with only those would become infinity.
  static float element(uint32_t bits, int) {
    const float whole = pygan::bits_to_float(bits);
    return whole != whole ? whole : pygan::bits_to_float(bits & 0xffffe000u);
  }
};

template <class T>
struct Pair {
  static constexpr int kPerRegister = 2;
  static float element(uint32_t bits, int i) { return pygan::to_float(T{uint16_t(bits >> (16 * i))}); }
};

// PTX ISA, "Matrix fragments for mma.m16n8k8" and ".m16n8k16". With g = lane / 4, t = lane % 4 and e elements a
// register: register i of A holds row g + 8 (i % 2), columns e t + 4 e (i / 2) and on; register i of B holds rows
// e t + 4 e i and on of column g; register i of D is row g + 8 (i / 2), column 2 t + i % 2.
template <class Format>
void combine_mma(void* const (&slots)[kWarp]) {
  constexpr int kElements = Format::kPerRegister, kDepth = 8 * kElements;
  float a[16][kDepth], b[kDepth][8], d[16][8];
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const auto& slot = *static_cast<const MmaSlot*>(slots[lane]);
    const unsigned g = lane / 4, t = lane % 4;
    for (unsigned e = 0; e < kElements; ++e) {
      for (unsigned i = 0; i < 4; ++i)
        a[g + 8 * (i % 2)][kElements * (t + 4 * (i / 2)) + e] = Format::element(slot.a[i], int(e));
      for (unsigned i = 0; i < 2; ++i) b[kElements * (t + 4 * i) + e][g] = Format::element(slot.b[i], int(e));
    }
    for (unsigned i = 0; i < 4; ++i) d[g + 8 * (i / 2)][2 * t + i % 2] = slot.d[i];
  }
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < kDepth; ++k)
      for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
  for (unsigned lane = 0; lane < kWarp; ++lane)
    for (unsigned i = 0; i < 4; ++i)
      static_cast<const MmaSlot*>(slots[lane])->d[i] = d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
}

// Register i of a lane: elements (lane / 4, 2 (lane % 4) and the next) of matrix i.
template <bool Transposed>
void combine_ldmatrix(uint32_t, void* const (&slots)[kWarp], Site) {
  uint16_t rows[kWarp][8];
  for (unsigned lane = 0; lane < kWarp; ++lane)
    std::memcpy(rows[lane], static_cast<const LdmatrixSlot*>(slots[lane])->row, sizeof rows[lane]);
  for (unsigned lane = 0; lane < kWarp; ++lane)
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned major = lane / 4, minor = 2 * (lane % 4);
      const uint16_t low = Transposed ? rows[8 * i + minor][major] : rows[8 * i + major][minor];
      const uint16_t high = Transposed ? rows[8 * i + minor + 1][major] : rows[8 * i + major][minor + 1];
      static_cast<const LdmatrixSlot*>(slots[lane])->registers[i] = low | uint32_t(high) << 16;
    }
}

bool aligned_to_16(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace

void combine_mma_tf32(uint32_t, void* const (&slots)[kWarp], Site) { combine_mma<Tf32>(slots); }
void combine_mma_bf16(uint32_t, void* const (&slots)[kWarp], Site) { combine_mma<Pair<pygan::BFloat16>>(slots); }
void combine_mma_f16(uint32_t, void* const (&slots)[kWarp], Site) { combine_mma<Pair<pygan::Float16>>(slots); }

void ldmatrix(uint32_t (&r)[4], const void* row, bool transposed, Site site) {
  if (!aligned_to_16(row)) fail("ldmatrix of a row that is not aligned to 16 bytes", {site});
  shared_offset(row, 16, site);
  if (observer) observer->access(site, row, 16, false);
  LdmatrixSlot slot{r, row};
  warp_collective("ldmatrix", 0xffffffffu, &slot, transposed ? combine_ldmatrix<true> : combine_ldmatrix<false>, site);
}

void check_cp_async(const void* shared, const void* global, int bytes, Site site) {
  if (!aligned_to_16(shared) || !aligned_to_16(global)) fail("cp.async address is not aligned to 16 bytes", {site});
  if (bytes < 0 || bytes > 16) fail("cp.async copies 0 to 16 bytes", {site});
  shared_offset(shared, 16, site);
  if (observer && bytes > 0) observer->access(site, global, size_t(bytes), false);
}

}  // namespace simt
