// The one table that decides how a product is cut up.
#pragma once

#include <algorithm>

#include "launch.h"
#include "types.h"

namespace pygan::cuda {

// A block computes kRows x kCols of C with kThreads threads and keeps kStages slices of its operands, 128 bytes of
// the inner dimension deep, in shared memory. kBlocks of them must fit a multiprocessor's registers.
//
//   tile     C        threads  stages  shared memory         for
//   large    128x128  256      3       3 x 36 KB = 108 KB     products that fill the card with such tiles
//   medium   64x64    128      4       4 x 18 KB =  72 KB     most layers of batch 256 and more
//   small    32x32    128      4       4 x  9 KB =  36 KB     the batches of 64 to 128 of GAN training
struct LargeTile {
  static constexpr int kRows = 128, kCols = 128, kThreads = 256, kWarpRows = 2, kStages = 3, kBlocks = 1;
};
struct MediumTile {
  static constexpr int kRows = 64, kCols = 64, kThreads = 128, kWarpRows = 2, kStages = 4, kBlocks = 3;
};
struct SmallTile {
  static constexpr int kRows = 32, kCols = 32, kThreads = 128, kWarpRows = 2, kStages = 4, kBlocks = 2;
};

enum class TileChoice { large, medium, small };

struct Plan {
  TileChoice tile;
  int splits;  // of the inner dimension, summed in a second launch in fixed order
};

// C is m x n, `slices` deep; `granule` neighbouring columns stay in one tile where a tile can hold them.
inline Plan plan_product(int64_t m, int64_t n, int64_t slices, int granule, bool only_small, size_t large_bytes) {
  const DeviceLimits& device = device_limits();
  const auto blocks = [&](int rows, int cols) {
    const int whole = granule <= cols ? cols / granule * granule : cols;
    return ceil_div(m, rows) * ceil_div(n, whole);
  };
  const bool large_fits = size_t(device.shared_bytes) >= large_bytes;
  if (!only_small && large_fits && blocks(128, 128) >= device.multiprocessors) return {TileChoice::large, 1};
  if (!only_small && blocks(64, 64) >= device.multiprocessors) return {TileChoice::medium, 1};
  // A split costs a launch, about 2 us: worth it where each of the few blocks would otherwise walk 16 slices or more.
  const int64_t small_blocks = std::max<int64_t>(1, blocks(32, 32));  // a bias gradient alone has no columns
  const int64_t splits = slices < 16 ? 1 : std::min<int64_t>(slices / 4, device.multiprocessors / small_blocks);
  return {TileChoice::small, int(splits < 2 ? 1 : splits)};
}

}  // namespace pygan::cuda
