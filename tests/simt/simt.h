// The SIMT emulator: one fiber a CUDA thread, one block after another, in a random order that a seed fixes.
//
// A thread runs until it waits; who runs next is chosen at random. So what only a missing barrier would order comes
// out in a wrong order under some seed, and what a GPU leaves undefined is NaN here: shared memory starts as 0xFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "vector_types.h"

#pragma GCC visibility push(hidden)
namespace simt {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr size_t kSharedLimit = 227 * 1024;
constexpr size_t kSharedWithoutOptIn = 48 * 1024;

// Where a kernel did something: a source line, or the return address of an access hook.
struct Site {
  const char* file;
  int line;
  const void* pc;
};

// The caller's line, as the default argument of an emulated function.
constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line, nullptr}; }

struct Builtins {
  uint3 thread{}, block{};
  dim3 block_dim, grid_dim;
};
extern Builtins builtins;

struct Kernel {
  void (*run)(const void* parameters);
  const void* parameters;
  size_t parameter_bytes;
};

// Runs the whole grid. Returns what went wrong, or nothing. A failure leaves the emulator usable.
std::string launch(dim3 grid, dim3 block, size_t shared_bytes, const Kernel& kernel);

// The random order from now on; PYGAN_SIMT_SEED (or 0) at the start.
void set_seed(uint64_t seed);

// What follows is called from kernels.

// Ends the launch with this text and these places. No destructor of the kernel's threads runs.
[[noreturn]] void fail(std::string text, std::initializer_list<Site> sites);

unsigned thread_number();  // in its block
void sync_threads(Site site);
void yield();

// Waits until all lanes of the mask called the same operation on the same line; the last one runs `combine` on
// what each of them brought.
using Combine = void (*)(uint32_t mask, void* const (&slots)[kWarp], Site site);
void warp_collective(const char* operation, uint32_t mask, void* slot, Combine combine, Site site);

// The block's dynamic shared memory: `bytes` is what the kernel is going to use of it.
void* shared_memory(size_t bytes, size_t alignment, Site site);
uint32_t shared_offset(const void* pointer, size_t bytes, Site site);

// cp.async with the source already read. Copies at once, or leaves NaN until the wait: each hides some mistakes.
void async_copy(void* shared, const unsigned char (&source)[16], Site site);
void async_commit();
void async_wait(int newest);

int atomic_add(int* address, int value);
unsigned atomic_add(unsigned* address, unsigned value);
unsigned long long atomic_add(unsigned long long* address, unsigned long long value);
unsigned atomic_inc(unsigned* address, unsigned limit);

// What the access hooks counted since the last reset, one entry a source line and kind of access. `actual` and
// `ideal` are 32-byte sectors of global memory, or wavefronts (passes over the banks) of shared memory.
struct AccessCounters {
  std::string where;
  bool shared, write;
  uint64_t warp_accesses, actual, ideal;
};
std::vector<AccessCounters> access_counters();  // empty without the hooks
void reset_access_counters();

// Watches launches; access.cpp has one, plain builds none.
class Observer {
 public:
  virtual void launch_begins(const unsigned char* shared, size_t shared_bytes, const Kernel& kernel) = 0;
  virtual void block_begins() = 0;
  virtual void block_ends() = 0;
  virtual void barrier() = 0;
  virtual void warp_barrier(unsigned warp) = 0;
  virtual void access(Site site, const void* address, size_t bytes, bool write) = 0;
  virtual void atomic(const void* address, size_t bytes) = 0;
  virtual void async_begins(Site site, const void* shared) = 0;
  virtual void async_ends(const void* shared) = 0;
  virtual std::string locate(const void* pc) = 0;
  virtual std::vector<AccessCounters> counters() = 0;
  virtual void reset_counters() = 0;

 protected:
  ~Observer() = default;
};
extern Observer* observer;
extern bool in_kernel;
// The stack of the running fiber: its own variables are no memory accesses of a GPU.
bool on_own_stack(const void* address);

}  // namespace simt
#pragma GCC visibility pop
