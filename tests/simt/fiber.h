// Fibers: stacks that one OS thread switches between.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#else
#define SIMT_ASAN 0
#endif

#pragma GCC visibility push(hidden)
namespace simt {

// A stack and the registers of who is suspended on it; the host's own stack is a Fiber without an allocation.
struct Fiber {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t context;
#endif
  char* bottom = nullptr;
  size_t size = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
};

void switch_fiber(Fiber& from, Fiber& to);

// The same for good: nobody will switch back to `from`.
[[noreturn]] void leave_fiber(Fiber& from, Fiber& to);

// To be called first on a new fiber; tells AddressSanitizer where the host's stack is if it came from there.
void arrive_on_fiber(Fiber& host);

// Stacks are kept: a launch takes as many as it has threads suspended at once.
class FiberPool {
 public:
  ~FiberPool();
  Fiber& take(void (*entry)());
  void give_back(Fiber& fiber) { free_.push_back(&fiber); }
  // After a failed launch, when suspended fibers were abandoned.
  void reclaim_all();

 private:
  Fiber* allocate();

  std::vector<std::unique_ptr<Fiber>> all_;
  std::vector<Fiber*> free_;
};

}  // namespace simt
#pragma GCC visibility pop
