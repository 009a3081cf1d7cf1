#include "simt.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <utility>

#include "fiber.h"

#if SIMT_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace simt {

Builtins builtins;
Observer* observer = nullptr;
bool in_kernel = false;

namespace {

constexpr unsigned kMaxWarps = kMaxThreads / kWarp;
constexpr int kUninitialized = 0xff;  // NaN in every floating-point type
constexpr uint64_t kSpinLimit = uint64_t(1) << 22;

bool same_site(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

std::string describe(const Site& site) {
  if (site.file != nullptr) return std::string(site.file) + ":" + std::to_string(site.line);
  return observer->locate(site.pc);
}

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

  void set_seed(uint64_t seed) {
    const std::lock_guard<std::mutex> lock(mutex_);
    random_ = Random(seed);
  }

  std::string launch(dim3 grid, dim3 block, size_t shared_bytes, const Kernel& kernel);

  Thread& current() { return *current_; }
  SharedMemory& shared() { return shared_; }
  Random& random() { return random_; }

  void sync_threads(Site site);
  void yield();
  void warp_collective(const char* operation, uint32_t mask, void* slot, Combine combine, Site site);
  [[noreturn]] void fail(std::string text, std::initializer_list<Site> sites);
  void complete(const AsyncCopy& copy) const;

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

Machine machine;

std::string Machine::launch(dim3 grid, dim3 block, size_t shared_bytes, const Kernel& kernel) {
  const std::lock_guard<std::mutex> lock(mutex_);
  kernel_ = kernel;
  host_ = Fiber{};
  failed_ = false;
  shared_.request(shared_bytes);
  builtins.grid_dim = grid;
  builtins.block_dim = block;
  set_up_threads(block);
  if (observer) observer->launch_begins(shared_.base(), shared_bytes, kernel);

  std::vector<uint64_t> order(uint64_t(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), uint64_t(0));
  random_.shuffle(order.data(), order.size());
  for (const uint64_t b : order) {
    builtins.block = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
    run_block();
    if (failed_) break;
  }
  if (!failed_) return "";

  pool_.reclaim_all();
  const uint3 b = builtins.block;
  std::string text =
      failure_ + ", in block (" + std::to_string(b.x) + ", " + std::to_string(b.y) + ", " + std::to_string(b.z) + ")";
  const char* separator = " [";
  for (const Site& site : std::exchange(failure_sites_, {})) {
    text += separator + describe(site);
    separator = "; ";
  }
  return text + (*separator == ';' ? "]" : "");
}

void Machine::set_up_threads(dim3 block) {
  const unsigned count = block.x * block.y * block.z;
  threads_.resize(count);
  warp_count_ = (count + kWarp - 1) / kWarp;
  for (unsigned i = 0; i < count; ++i) {
    threads_[i].number = i;
    threads_[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
  }
}

void Machine::run_block() {
  shared_.fill();
  for (Warp& warp : warps_) warp.gatherings.clear();
  for (Thread& thread : threads_) {
    thread.fiber = nullptr;
    thread.async_groups = 0;
    thread.async_copies.clear();
    make_ready(thread);
  }
  current_ = nullptr;
  exited_ = at_barrier_ = 0;
  barrier_mixed_ = false;
  yields_ = 0;
  order_ = Order(random_.below(3));
  std::iota(warp_priority_, warp_priority_ + warp_count_, 0u);
  random_.shuffle(warp_priority_, warp_count_);
  if (observer) observer->block_begins();

  in_kernel = true;
  Thread& first = pick();
  first.fiber = &pool_.take(fiber_main);
  make_current(first);
  switch_fiber(host_, *first.fiber);
  in_kernel = false;
  if (observer && !failed_) observer->block_ends();
}

// Threads that never wait run one after another on the same fiber.
void Machine::fiber_main() {
  arrive_on_fiber(machine.host_);
  for (;;) {
    bool thrown = false;
    try {
      machine.kernel_.run(machine.kernel_.parameters);
    } catch (...) {
      thrown = true;  // no switch from in here: the runtime keeps its list of caught exceptions per OS thread
    }
    if (thrown) machine.fail("a C++ exception left the kernel", {});
    machine.finish_thread();
  }
}

void Machine::finish_thread() {
  Fiber& own = *current_->fiber;
  current_->state = State::exited;
  yields_ = 0;
  if (++exited_ == threads_.size()) {
    pool_.give_back(own);
    leave_fiber(own, host_);
  }
  Thread& next = pick();
  make_current(next);
  if (next.fiber == nullptr) {
    next.fiber = &own;
    return;
  }
  pool_.give_back(own);
  leave_fiber(own, *next.fiber);
}

// The current thread waits, unless it was made ready: others run.
void Machine::suspend() {
  Thread& self = *current_;
  Thread& next = pick();
  if (&next == &self) return;
  if (next.fiber == nullptr) next.fiber = &pool_.take(fiber_main);
  make_current(next);
  switch_fiber(*self.fiber, *next.fiber);
}

Thread& Machine::pick() {
  if (ready_warps_ == 0) release_barrier();
  const unsigned w = pick_warp();
  Warp& warp = warps_[w];
  const unsigned lane = random_.bit_of(warp.ready);
  warp.ready &= ~(1u << lane);
  if (warp.ready == 0) ready_warps_ &= ~(1u << w);
  return threads_[w * kWarp + lane];
}

unsigned Machine::pick_warp() {
  if (order_ == Order::warp_priorities)
    return *std::find_if(warp_priority_, warp_priority_ + warp_count_,
                         [&](unsigned w) { return warps_[w].ready != 0; });
  if (order_ == Order::stay_in_warp && current_ != nullptr) {
    const unsigned w = current_->number / kWarp;
    if ((ready_warps_ >> w) & 1u) return w;
  }
  return random_.bit_of(ready_warps_);
}

void Machine::make_ready(Thread& thread) {
  thread.state = State::ready;
  warps_[thread.number / kWarp].ready |= 1u << (thread.number % kWarp);
  ready_warps_ |= 1u << (thread.number / kWarp);
}

void Machine::make_current(Thread& thread) {
  current_ = &thread;
  builtins.thread = thread.index;
}

void Machine::sync_threads(Site site) {
  current_->state = State::at_barrier;
  current_->site = site;
  current_->operation = "__syncthreads";
  if (at_barrier_++ == 0) barrier_site_ = site;
  if (!same_site(site, barrier_site_)) barrier_mixed_ = true;
  suspend();
}

// Nothing can run: either everybody is at one barrier, or the kernel hangs.
void Machine::release_barrier() {
  if (at_barrier_ != threads_.size() || barrier_mixed_) {
    const bool in_warp = std::any_of(threads_.begin(), threads_.end(),
                                     [](const Thread& t) { return t.state == State::in_warp_operation; });
    fail((in_warp ? "divergent warp operation: " : "divergent barrier: ") + describe_waiting(), {});
  }
  at_barrier_ = 0;
  yields_ = 0;
  for (Thread& thread : threads_) make_ready(thread);
  if (observer) observer->barrier();
}

void Machine::yield() {
  if (++yields_ == kSpinLimit) fail("threads spin and nobody makes progress: " + describe_waiting(), {});
  make_ready(*current_);
  suspend();
}

void Machine::warp_collective(const char* operation, uint32_t mask, void* slot, Combine combine, Site site) {
  Thread& self = *current_;
  Warp& warp = warps_[self.number / kWarp];
  const uint32_t own = 1u << (self.number % kWarp);
  if ((mask & own) == 0) fail(std::string(operation) + " with a mask that leaves out the calling lane", {site});

  auto gathering = std::find_if(warp.gatherings.begin(), warp.gatherings.end(), [&](const Gathering& g) {
    return g.combine == combine && g.mask == mask && same_site(g.site, site);
  });
  if (gathering == warp.gatherings.end()) {
    warp.gatherings.push_back({combine, mask, 0, site, {}});
    gathering = warp.gatherings.end() - 1;
  }
  gathering->arrived |= own;
  gathering->slots[self.number % kWarp] = slot;
  if (gathering->arrived != mask) {
    self.state = State::in_warp_operation;
    self.site = site;
    self.operation = operation;
    self.mask = mask;
    return suspend();
  }
  const Gathering whole = *gathering;
  warp.gatherings.erase(gathering);
  combine(mask, whole.slots, site);
  for (uint32_t others = mask & ~own; others != 0; others &= others - 1)
    make_ready(threads_[self.number / kWarp * kWarp + unsigned(__builtin_ctz(others))]);
}

void Machine::fail(std::string text, std::initializer_list<Site> sites) {
  failed_ = true;
  failure_ = std::move(text);  // nothing that owns memory stays behind on the abandoned stack
  failure_sites_ = sites;
  for (Warp& warp : warps_) warp.ready = 0;
  ready_warps_ = 0;
  leave_fiber(*current_->fiber, host_);
}

// "threads 0-15, 17 at __syncthreads (file:line); threads 16 exited"
std::string Machine::describe_waiting() const {
  const auto doing = [](const Thread& t) -> std::string {
    if (t.state == State::exited) return "exited";
    if (t.state == State::ready) return "running";
    std::string text = std::string("at ") + t.operation + " (" + describe(t.site);
    if (t.state == State::in_warp_operation) {
      char mask[24];
      std::snprintf(mask, sizeof mask, ", mask 0x%08x", t.mask);
      text += mask;
    }
    return text + ")";
  };
  std::vector<std::pair<std::string, std::string>> groups;  // what they do, and which threads
  for (size_t first = 0, last; first < threads_.size(); first = last) {
    const std::string what = doing(threads_[first]);
    for (last = first + 1; last < threads_.size() && doing(threads_[last]) == what;) ++last;
    std::string range = std::to_string(first);
    if (last - first > 1) range += "-" + std::to_string(last - 1);
    const auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == what; });
    if (group == groups.end()) {
      groups.emplace_back(what, range);
    } else {
      group->second += ", " + range;
    }
  }
  std::string text;
  for (const auto& [what, which] : groups) text += (text.empty() ? "threads " : "; threads ") + which + " " + what;
  return text;
}

void Machine::complete(const AsyncCopy& copy) const {
  if (copy.deferred) std::memcpy(copy.shared, copy.source, sizeof copy.source);
  if (observer) observer->async_ends(copy.shared);
}

// One OS thread runs all fibers: an atomic only has to give way, for those who spin on it.
template <class T, class Update>
T atomic(T* address, Update update) {
  yield();
  if (observer) observer->atomic(address, sizeof(T));
  const T old = *address;
  *address = update(old);
  return old;
}

template <class T>
T add(T* address, T value) {
  return atomic(address, [value](T old) {
    T sum;
    (void)__builtin_add_overflow(old, value, &sum);  // wraps, signed too
    return sum;
  });
}

}  // namespace

std::string launch(dim3 grid, dim3 block, size_t shared_bytes, const Kernel& kernel) {
  return machine.launch(grid, block, shared_bytes, kernel);
}

void set_seed(uint64_t seed) { machine.set_seed(seed); }

void fail(std::string text, std::initializer_list<Site> sites) { machine.fail(std::move(text), sites); }

unsigned thread_number() { return machine.current().number; }

void sync_threads(Site site) { machine.sync_threads(site); }

void yield() { machine.yield(); }

void warp_collective(const char* operation, uint32_t mask, void* slot, Combine combine, Site site) {
  machine.warp_collective(operation, mask, slot, combine, site);
}

void* shared_memory(size_t bytes, size_t alignment, Site site) {
  SharedMemory& shared = machine.shared();
  if (bytes > shared.bytes())
    fail("the kernel's shared storage has " + std::to_string(bytes) + " bytes, the launch gave " +
             std::to_string(shared.bytes()),
         {site});
  if (alignment > SharedMemory::kAlignment) fail("shared storage is only aligned to 128 bytes", {site});
  return shared.base();
}

uint32_t shared_offset(const void* pointer, size_t bytes, Site site) {
  const size_t offset = machine.shared().offset(pointer);  // of a pointer below the base: huge
  if (offset > machine.shared().bytes() || bytes > machine.shared().bytes() - offset)
    fail("the address is outside of the block's shared memory", {site});
  return uint32_t(offset);
}

void async_copy(void* shared, const unsigned char (&source)[16], Site site) {
  Thread& self = machine.current();
  self.async_copies.push_back({static_cast<unsigned char*>(shared), {}, self.async_groups, machine.random().coin()});
  AsyncCopy& copy = self.async_copies.back();
  std::memcpy(copy.source, source, sizeof source);
  if (copy.deferred) {
    std::memset(shared, kUninitialized, sizeof source);
  } else {
    std::memcpy(shared, source, sizeof source);
  }
  if (observer) observer->async_begins(site, shared);
}

void async_commit() { ++machine.current().async_groups; }

void async_wait(int newest) {
  Thread& self = machine.current();
  auto& copies = self.async_copies;  // in order of their groups
  const auto pending = std::find_if(copies.begin(), copies.end(),
                                    [&](const AsyncCopy& c) { return c.group >= self.async_groups - newest; });
  std::for_each(copies.begin(), pending, [](const AsyncCopy& c) { machine.complete(c); });
  copies.erase(copies.begin(), pending);
}

int atomic_add(int* address, int value) { return add(address, value); }
unsigned atomic_add(unsigned* address, unsigned value) { return add(address, value); }
unsigned long long atomic_add(unsigned long long* address, unsigned long long value) { return add(address, value); }

unsigned atomic_inc(unsigned* address, unsigned limit) {
  return atomic(address, [limit](unsigned old) { return old >= limit ? 0 : old + 1; });
}

bool on_own_stack(const void* address) {
  const Fiber& fiber = *machine.current().fiber;
  return size_t(static_cast<const char*>(address) - fiber.bottom) < fiber.size;
}

std::vector<AccessCounters> access_counters() {
  return observer ? observer->counters() : std::vector<AccessCounters>();
}

void reset_access_counters() {
  if (observer) observer->reset_counters();
}

}  // namespace simt
