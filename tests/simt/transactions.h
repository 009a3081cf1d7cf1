// What the accesses of a warp cost.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simt.h"

#pragma GCC visibility push(hidden)
namespace simt {

// What the lanes of a warp accessed by one instruction.
struct WarpAccess {
  uint32_t lanes = 0;
  size_t bytes = 0;
  uintptr_t address[kWarp];
};

// `ideal` is the least that the same bytes could cost.
struct Transactions {
  uint64_t actual = 0, ideal = 0;
};

Transactions global_sectors(const WarpAccess& access);
Transactions shared_wavefronts(const WarpAccess& access);

}  // namespace simt
#pragma GCC visibility pop
