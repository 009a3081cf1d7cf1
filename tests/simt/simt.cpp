// What kernels call.
#include "simt.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "machine.h"

namespace simt {

Builtins builtins;
Observer* observer = nullptr;
__thread bool in_kernel = false;

namespace {

void complete(const AsyncCopy& copy) {
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

void set_seed(uint64_t seed) {
  const std::lock_guard<std::mutex> lock(machine.mutex());
  machine.set_seed(seed);
}

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
  std::for_each(copies.begin(), pending, [](const AsyncCopy& c) { complete(c); });
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
  const std::lock_guard<std::mutex> lock(machine.mutex());
  return observer ? observer->counters() : std::vector<AccessCounters>();
}

void reset_access_counters() {
  const std::lock_guard<std::mutex> lock(machine.mutex());
  if (observer) observer->reset_counters();
}

}  // namespace simt
