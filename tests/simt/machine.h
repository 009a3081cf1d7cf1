// The scheduler: one block at a time, its threads as fibers.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "fiber.h"
#include "simt.h"

#if SIMT_ASAN
#include <sanitizer/asan_interface.h>
#endif

#pragma GCC visibility push(hidden)
namespace simt {

constexpr unsigned kMaxWarps = kMaxThreads / kWarp;
constexpr int kUninitialized = 0xff;  // NaN in every floating-point type

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du) {}

  uint32_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return uint32_t(state_ >> 32);
  }

  uint32_t below(uint32_t n) { return uint32_t((uint64_t(next()) * n) >> 32); }
  bool coin() { return next() & 1; }

  // Any set bit of a mask that has one.
  unsigned bit_of(uint32_t mask) {
    const unsigned turn = next() & 31;
    const uint32_t turned = (mask >> turn) | (mask << ((32 - turn) & 31));
    return (unsigned(__builtin_ctz(turned)) + turn) & 31;
  }

  template <class T>
  void shuffle(T* items, size_t n) {
    for (size_t i = n; i > 1; --i) std::swap(items[i - 1], items[below(uint32_t(i))]);
  }

 private:
  uint64_t state_;
};

// The block's shared memory. Only 128-byte aligned, as on a GPU: a kernel that needs more finds out here.
class SharedMemory {
 public:
  static constexpr size_t kAlignment = 128;

  SharedMemory() {
    void* memory = nullptr;
    if (posix_memalign(&memory, 2 * kAlignment, kCapacity + kAlignment) != 0) std::abort();
    allocation_ = static_cast<unsigned char*>(memory);
    base_ = allocation_ + kAlignment;
  }
  ~SharedMemory() { std::free(allocation_); }

  void request(size_t bytes) {
    bytes_ = bytes;
#if SIMT_ASAN
    __asan_unpoison_memory_region(base_, bytes);
    __asan_poison_memory_region(base_ + bytes, kCapacity - bytes);
    __asan_poison_memory_region(allocation_, kAlignment);
#endif
  }

  void fill() { std::memset(base_, kUninitialized, bytes_); }
  unsigned char* base() const { return base_; }
  size_t bytes() const { return bytes_; }
  size_t offset(const void* pointer) const { return size_t(static_cast<const unsigned char*>(pointer) - base_); }

 private:
  static constexpr size_t kCapacity = kSharedLimit + 64 * 1024;
  unsigned char *allocation_, *base_;
  size_t bytes_ = 0;
};

struct AsyncCopy {
  unsigned char* shared;
  unsigned char source[16];
  int group;
  bool deferred;
};

enum class State : uint8_t { ready, at_barrier, in_warp_operation, exited };

struct Thread {
  Fiber* fiber = nullptr;  // none before it starts
  uint3 index{};
  unsigned number = 0;
  State state = State::ready;
  Site site{};
  const char* operation = nullptr;
  uint32_t mask = 0;
  int async_groups = 0;
  std::vector<AsyncCopy> async_copies;
};

// A warp operation that waits for lanes.
struct Gathering {
  Combine combine;
  uint32_t mask, arrived;
  Site site;
  void* slots[kWarp];
};

struct Warp {
  uint32_t ready = 0;
  std::vector<Gathering> gatherings;  // more than one when disjoint masks are under way
};

// Who runs next: each order hides some mistakes that another one shows.
enum class Order { uniform, stay_in_warp, warp_priorities };

class Machine {
 public:
  Machine() : random_(std::strtoull(seed_text(), nullptr, 0)) {}

  // Held during a launch: launches of several OS threads run one after another.
  std::mutex& mutex() { return mutex_; }
  void set_seed(uint64_t seed) { random_ = Random(seed); }

  std::string launch(dim3 grid, dim3 block, size_t shared_bytes, const Kernel& kernel);

  Thread& current() { return *current_; }
  SharedMemory& shared() { return shared_; }
  Random& random() { return random_; }

  void sync_threads(Site site);
  void yield();
  void warp_collective(const char* operation, uint32_t mask, void* slot, Combine combine, Site site);
  [[noreturn]] void fail(std::string text, std::initializer_list<Site> sites);

 private:
  static const char* seed_text() {
    const char* text = std::getenv("PYGAN_SIMT_SEED");
    return text == nullptr ? "0" : text;
  }
  static void fiber_main();

  void set_up_threads(dim3 block);
  void run_block();
  void finish_thread();
  void suspend();
  Thread& pick();
  unsigned pick_warp();
  void make_ready(Thread& thread);
  void make_current(Thread& thread);
  void release_barrier();
  std::string describe_waiting() const;

  std::mutex mutex_;
  Random random_;
  SharedMemory shared_;
  FiberPool pool_;
  Fiber host_;
  Kernel kernel_{};

  std::vector<Thread> threads_;
  Warp warps_[kMaxWarps];
  uint32_t ready_warps_ = 0;
  unsigned warp_count_ = 0;
  Order order_ = Order::uniform;
  unsigned warp_priority_[kMaxWarps] = {};
  Thread* current_ = nullptr;

  unsigned exited_ = 0, at_barrier_ = 0;
  bool barrier_mixed_ = false;
  Site barrier_site_{};
  uint64_t yields_ = 0;

  bool failed_ = false;
  std::string failure_;
  std::vector<Site> failure_sites_;
};

extern Machine machine;

}  // namespace simt
#pragma GCC visibility pop
