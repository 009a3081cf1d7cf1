#include "transactions.h"

#include <algorithm>
#include <vector>

namespace simt {
namespace {

// Every `unit`-byte piece that the lanes [first, last) touch, each once.
void collect(const WarpAccess& access, unsigned first, unsigned last, size_t unit, std::vector<uintptr_t>& pieces) {
  pieces.clear();
  for (unsigned lane = first; lane < last; ++lane) {
    if (((access.lanes >> lane) & 1u) == 0) continue;
    const uintptr_t end = (access.address[lane] + access.bytes - 1) / unit;
    for (uintptr_t piece = access.address[lane] / unit; piece <= end; ++piece) pieces.push_back(piece);
  }
  std::sort(pieces.begin(), pieces.end());
  pieces.erase(std::unique(pieces.begin(), pieces.end()), pieces.end());
}

}  // namespace

Transactions global_sectors(const WarpAccess& access) {
  constexpr size_t kSector = 32;
  std::vector<uintptr_t> pieces;
  collect(access, 0, kWarp, access.bytes, pieces);
  const uint64_t ideal = (pieces.size() * access.bytes + kSector - 1) / kSector;
  collect(access, 0, kWarp, kSector, pieces);
  return {pieces.size(), ideal};
}

// 32 banks of four bytes. Wide accesses go by half or quarter warps; one word for many lanes is read once.
Transactions shared_wavefronts(const WarpAccess& access) {
  constexpr size_t kBankBytes = 4, kBanks = 32;
  const unsigned lanes_at_once = access.bytes <= 4 ? 32 : access.bytes <= 8 ? 16 : 8;
  Transactions result;
  std::vector<uintptr_t> words;
  for (unsigned first = 0; first < kWarp; first += lanes_at_once) {
    collect(access, first, first + lanes_at_once, kBankBytes, words);
    if (words.empty()) continue;
    unsigned in_bank[kBanks] = {};
    for (const uintptr_t word : words) ++in_bank[word % kBanks];
    result.actual += *std::max_element(in_bank, in_bank + kBanks);
    result.ideal += 1;
  }
  return result;
}

}  // namespace simt
