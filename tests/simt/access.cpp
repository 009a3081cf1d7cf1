// Checks and counts every memory access of kernels that were compiled with -fsanitize=thread: the compiler calls
// the functions at the foot of this file before each. The real run-time library of that option is not linked.
//
// Shared memory has a shadow cell a byte with the last write and the reads since the last barrier, so a race is
// found whatever the order in which the threads happened to run.

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "simt.h"
#include "transactions.h"

namespace simt {
namespace {

// One access in the shadow. Epochs count barriers; within one, a warp's epochs count its full __syncwarp.
struct Mark {
  explicit Mark(uint32_t at = 0) : epoch(at) {}

  uint32_t epoch;
  uint16_t thread = 0, warp_epoch = 0, site = 0;
  bool several_lanes = false, several_warps = false;  // of reads: not by `thread` alone
  bool in_flight = false;                             // of writes: a cp.async that nobody waited for
};

struct Cell {
  Mark write, read;
};

struct Instruction {
  Site site;
  bool shared, write;
  uint64_t warp_accesses = 0;
  Transactions sum{};
  std::vector<WarpAccess> pending[kMaxThreads / kWarp] = {};
};

// The source lines of return addresses, by binutils' addr2line.
std::vector<std::string> locate_all(const std::vector<const void*>& pcs) {
  std::vector<std::string> lines(pcs.size(), "unknown line");
  std::map<std::string, std::vector<size_t>> by_module;
  std::vector<uintptr_t> offsets(pcs.size());
  for (size_t i = 0; i < pcs.size(); ++i) {
    Dl_info info;
    if (dladdr(pcs[i], &info) == 0) continue;
    offsets[i] = reinterpret_cast<uintptr_t>(pcs[i]) - reinterpret_cast<uintptr_t>(info.dli_fbase) - 1;
    by_module[info.dli_fname].push_back(i);
  }
  for (const auto& [module, indices] : by_module) {
    std::string command = "addr2line -e '" + module + "'";
    char text[4096];
    for (const size_t i : indices) {
      std::snprintf(text, sizeof text, " 0x%zx", size_t(offsets[i]));
      command += text;
    }
    FILE* output = popen(command.c_str(), "r");
    if (output == nullptr) continue;
    for (const size_t i : indices) {
      if (std::fgets(text, sizeof text, output) == nullptr) break;
      lines[i] = text;
      lines[i].resize(lines[i].find_first_of(" \n"));  // also cuts " (discriminator n)"
    }
    pclose(output);
  }
  return lines;
}

class AccessChecker final : public Observer {
 public:
  void launch_begins(const unsigned char* shared, size_t shared_bytes, const Kernel& kernel) override {
    shared_ = reinterpret_cast<uintptr_t>(shared);
    shared_bytes_ = shared_bytes;
    cells_.resize(std::max(cells_.size(), shared_bytes));
    parameters_ = reinterpret_cast<uintptr_t>(kernel.parameters);
    parameter_bytes_ = kernel.parameter_bytes;
    for (const auto& [instruction, warp] : touched_) instructions_[instruction]->pending[warp].clear();
    touched_.clear();
  }

  // Nothing but atomics is marked with the block's first epoch.
  void block_begins() override { block_epoch_ = ++epoch_, ++epoch_; }

  void block_ends() override { flush(); }

  void barrier() override {
    flush();
    ++epoch_;
  }

  void warp_barrier(unsigned warp) override { ++warp_epoch_[warp]; }

  void access(Site site, const void* address, size_t bytes, bool write) override {
    const auto at = reinterpret_cast<uintptr_t>(address);
    const bool shared = at - (shared_ - kRedZoneBelow) < kRedZoneBelow + kSharedLimit + kRedZoneAbove;
    const uint16_t instruction = instruction_of(site, shared, write);
    if (shared) check_shared(site, instruction, at - shared_, bytes, write);
    count(instruction, at, bytes);
  }

  void atomic(const void* address, size_t bytes) override {
    const uintptr_t offset = reinterpret_cast<uintptr_t>(address) - shared_;
    for (size_t i = offset; offset < shared_bytes_ && i < offset + bytes; ++i)
      if (!written(cells_[i])) cells_[i].write = Mark{block_epoch_};
  }

  void async_begins(Site site, const void* shared) override {
    access(site, shared, 16, true);
    Cell* cells = &cells_[reinterpret_cast<uintptr_t>(shared) - shared_];
    for (int i = 0; i < 16; ++i) cells[i].write.in_flight = true;
  }

  // From here on it is a write of the thread that waited.
  void async_ends(const void* shared) override {
    Cell* cells = &cells_[reinterpret_cast<uintptr_t>(shared) - shared_];
    for (int i = 0; i < 16; ++i) cells[i].write = mark(cells[i].write.site);
  }

  std::string locate(const void* pc) override { return locate_all({pc})[0]; }

  std::vector<AccessCounters> counters() override;

  void reset_counters() override {
    for (const auto& instruction : instructions_)
      instruction->warp_accesses = instruction->sum.actual = instruction->sum.ideal = 0;
  }

  bool is_private(const void* address) const {
    const auto at = reinterpret_cast<uintptr_t>(address);
    return on_own_stack(address) || at - parameters_ < parameter_bytes_ ||
           at - reinterpret_cast<uintptr_t>(&builtins) < sizeof builtins;
  }

 private:
  static constexpr size_t kRedZoneBelow = 128, kRedZoneAbove = 64 * 1024;  // see SharedMemory

  Mark mark(uint16_t instruction) const {
    const unsigned thread = thread_number();
    Mark result(epoch_);
    result.thread = uint16_t(thread);
    result.warp_epoch = warp_epoch_[thread / kWarp];
    result.site = instruction;
    return result;
  }

  bool written(const Cell& cell) const { return cell.write.epoch >= block_epoch_; }

  // Whether nothing orders what `past` stands for before the access `now`.
  static bool unordered(const Mark& past, const Mark& now) {
    if (past.epoch != now.epoch) return false;
    if (past.several_warps || past.thread / kWarp != now.thread / kWarp) return true;
    return past.warp_epoch == now.warp_epoch && (past.several_lanes || past.thread != now.thread);
  }

  static void add_read(Mark& past, const Mark& now) {
    if (past.epoch != now.epoch) {
      past = now;
    } else if (past.thread / kWarp != now.thread / kWarp) {
      past.several_warps = true;
    } else if (past.warp_epoch != now.warp_epoch && !past.several_warps) {
      past = now;  // the warp's own barrier ordered the earlier ones
    } else if (past.thread != now.thread) {
      past.several_lanes = true;
    }
  }

  void check_shared(Site site, uint16_t instruction, uintptr_t offset, size_t bytes, bool write);
  [[noreturn]] void report_race(Site site, size_t offset, const Mark& now, const Mark& past, const char* what);
  uint16_t instruction_of(Site site, bool shared, bool write);
  void count(uint16_t instruction, uintptr_t address, size_t bytes);
  void flush();

  uintptr_t shared_ = 0, parameters_ = 0;
  size_t shared_bytes_ = 0, parameter_bytes_ = 0;
  std::vector<Cell> cells_;
  uint32_t epoch_ = 0, block_epoch_ = 0;
  uint16_t warp_epoch_[kMaxThreads / kWarp] = {};

  std::vector<std::unique_ptr<Instruction>> instructions_;
  std::unordered_map<uint64_t, uint16_t> instruction_ids_;
  std::pair<uint64_t, uint16_t> recent_ids_[1024] = {};
  struct Occurrences {
    uint32_t epoch, count;
  };
  std::vector<Occurrences> occurrences_[kMaxThreads];   // of each instruction in this epoch
  std::vector<std::pair<uint16_t, unsigned>> touched_;  // instructions and warps with pending accesses
};

void AccessChecker::check_shared(Site site, uint16_t instruction, uintptr_t offset, size_t bytes, bool write) {
  if (offset >= shared_bytes_ || bytes > shared_bytes_ - offset)
    fail("shared-memory access out of bounds: " + std::to_string(bytes) + " bytes at " +
             std::to_string(intptr_t(offset)) + " of " + std::to_string(shared_bytes_),
         {site});
  const Mark now = mark(instruction);
  for (size_t i = offset; i < offset + bytes; ++i) {
    Cell& cell = cells_[i];
    if (written(cell) && cell.write.in_flight)
      report_race(site, i, now, cell.write, "touches the destination of a cp.async that was not waited for, of");
    if (unordered(cell.write, now))
      report_race(site, i, now, cell.write, write ? "writes after a write of" : "reads after a write of");
    if (write) {
      if (unordered(cell.read, now)) report_race(site, i, now, cell.read, "writes after a read of");
      cell.write = now;
    } else {
      if (!written(cell))
        fail("uninitialised shared memory: thread " + std::to_string(now.thread) + " reads byte " + std::to_string(i),
             {site});
      add_read(cell.read, now);
    }
  }
}

void AccessChecker::report_race(Site site, size_t offset, const Mark& now, const Mark& past, const char* what) {
  fail("shared-memory race on byte " + std::to_string(offset) + ": thread " + std::to_string(now.thread) + " " + what +
           " thread " + std::to_string(past.thread) + " and no barrier is between them",
       {site, instructions_[past.site]->site});
}

uint16_t AccessChecker::instruction_of(Site site, bool shared, bool write) {
  uint64_t key = site.pc != nullptr ? reinterpret_cast<uint64_t>(site.pc)
                                    : reinterpret_cast<uint64_t>(site.file) + (uint64_t(site.line) << 48);
  key = key * 4 + 2 * shared + write;
  auto& recent = recent_ids_[(key ^ (key >> 10)) % 1024];
  if (recent.first == key) return recent.second;
  const auto found = instruction_ids_.try_emplace(key, uint16_t(instructions_.size()));
  if (found.second) {
    if (instructions_.size() == UINT16_MAX) fail("more instructions than the access hooks can count", {site});
    instructions_.push_back(std::make_unique<Instruction>(Instruction{site, shared, write}));
  }
  recent = {key, found.first->second};
  return recent.second;
}

// The n-th access of an instruction by each lane since the last barrier is taken for one access of the warp.
void AccessChecker::count(uint16_t instruction, uintptr_t address, size_t bytes) {
  const unsigned thread = thread_number(), warp = thread / kWarp;
  auto& occurrences = occurrences_[thread];
  if (occurrences.size() <= instruction) occurrences.resize(instructions_.size());
  Occurrences& seen = occurrences[instruction];
  if (seen.epoch != epoch_) seen = {epoch_, 0};
  const uint32_t n = seen.count++;
  auto& pending = instructions_[instruction]->pending[warp];
  if (pending.empty()) touched_.emplace_back(instruction, warp);
  if (pending.size() <= n) pending.resize(n + 1);
  pending[n].lanes |= 1u << (thread % kWarp);
  pending[n].bytes = bytes;
  pending[n].address[thread % kWarp] = address;
}

void AccessChecker::flush() {
  for (const auto& [id, warp] : touched_) {
    Instruction& instruction = *instructions_[id];
    for (const WarpAccess& access : instruction.pending[warp]) {
      const Transactions cost = instruction.shared ? shared_wavefronts(access) : global_sectors(access);
      ++instruction.warp_accesses;
      instruction.sum.actual += cost.actual;
      instruction.sum.ideal += cost.ideal;
    }
    instruction.pending[warp].clear();
  }
  touched_.clear();
}

std::vector<AccessCounters> AccessChecker::counters() {
  std::vector<const void*> pcs;
  for (const auto& instruction : instructions_) pcs.push_back(instruction->site.pc);
  const std::vector<std::string> lines = locate_all(pcs);
  std::map<std::pair<std::string, int>, AccessCounters> by_line;
  for (size_t i = 0; i < instructions_.size(); ++i) {
    const Instruction& it = *instructions_[i];
    if (it.warp_accesses == 0) continue;
    const std::string where = it.site.pc ? lines[i] : std::string(it.site.file) + ":" + std::to_string(it.site.line);
    const AccessCounters none{where, it.shared, it.write, 0, 0, 0};
    AccessCounters& sum = by_line.try_emplace({where, 2 * it.shared + it.write}, none).first->second;
    sum.warp_accesses += it.warp_accesses;
    sum.actual += it.sum.actual;
    sum.ideal += it.sum.ideal;
  }
  std::vector<AccessCounters> result;
  for (auto& [key, sum] : by_line) result.push_back(std::move(sum));
  return result;
}

AccessChecker& checker() {
  static AccessChecker instance;
  return instance;
}

[[maybe_unused]] const bool registered = (observer = &checker(), true);

void on_access(const void* address, size_t bytes, bool write, const void* pc, bool aligned = true) {
  if (!in_kernel || checker().is_private(address)) return;
  const Site site{nullptr, 0, pc};
  if (aligned && reinterpret_cast<uintptr_t>(address) % bytes != 0)
    fail("misaligned access of " + std::to_string(bytes) + " bytes", {site});
  checker().access(site, address, bytes, write);
}

// A struct: a GPU's instruction moves 16 bytes of it at most.
void on_range(const void* address, size_t bytes, bool write, const void* pc) {
  constexpr size_t kWidest = 16;
  const auto* const first = static_cast<const char*>(address);
  for (size_t done = 0; done < bytes; done += kWidest)
    on_access(first + done, std::min(kWidest, bytes - done), write, pc, false);
}

}  // namespace
}  // namespace simt

#pragma GCC visibility push(hidden)
extern "C" {

#define SIMT_HOOKS(size)                                                                                        \
  void __tsan_read##size(void* address) { simt::on_access(address, size, false, __builtin_return_address(0)); } \
  void __tsan_write##size(void* address) { simt::on_access(address, size, true, __builtin_return_address(0)); } \
  void __tsan_unaligned_read##size(void* address) {                                                             \
    simt::on_access(address, size, false, __builtin_return_address(0), false);                                  \
  }                                                                                                             \
  void __tsan_unaligned_write##size(void* address) {                                                            \
    simt::on_access(address, size, true, __builtin_return_address(0), false);                                   \
  }
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)

void __tsan_read_range(void* address, size_t bytes) {
  simt::on_range(address, bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t bytes) {
  simt::on_range(address, bytes, true, __builtin_return_address(0));
}

// Of host code in the same files.
void __tsan_init() {}
void __tsan_vptr_update(void*, void*) {}
char __tsan_atomic8_load(const volatile char* address, int) { return __atomic_load_n(address, __ATOMIC_ACQUIRE); }
}
#pragma GCC visibility pop
