#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {
namespace {

constexpr size_t kGuardBytes = 4096;
constexpr size_t kStackBytes = SIMT_ASAN ? 256 * 1024 : 64 * 1024;

void before_switch([[maybe_unused]] void** fake_stack, [[maybe_unused]] const Fiber& to) {
#if SIMT_ASAN
  __sanitizer_start_switch_fiber(fake_stack, to.bottom, to.size);
#endif
}

void after_switch([[maybe_unused]] Fiber& self) {
#if SIMT_ASAN
  __sanitizer_finish_switch_fiber(self.fake_stack, nullptr, nullptr);
#endif
}

#if defined(__x86_64__)

// Saves what the ABI lets a callee not change. The jump, not a return: the return-address predictor would miss.
asm(R"(
.text
.hidden pygan_simt_switch
.globl pygan_simt_switch
.type pygan_simt_switch, @function
pygan_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmp *%rcx
.size pygan_simt_switch, .-pygan_simt_switch
)");
extern "C" void pygan_simt_switch(void** save, void* load);

void raw_switch(Fiber& from, Fiber& to) { pygan_simt_switch(&from.stack_pointer, to.stack_pointer); }

void prepare(Fiber& fiber, char* top, void (*entry)()) {
  // Six registers, the entry, and a null return address where a called function expects its own.
  void** frame = reinterpret_cast<void**>(top - 64);
  for (int i = 0; i < 8; ++i) frame[i] = nullptr;
  frame[6] = reinterpret_cast<void*>(entry);
  fiber.stack_pointer = frame;
}

#else

void raw_switch(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

void prepare(Fiber& fiber, char* top, void (*entry)()) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.bottom;
  fiber.context.uc_stack.ss_size = size_t(top - fiber.bottom);
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
}

#endif

}  // namespace

void switch_fiber(Fiber& from, Fiber& to) {
  before_switch(&from.fake_stack, to);
  raw_switch(from, to);
  after_switch(from);
}

void leave_fiber(Fiber& from, Fiber& to) {
  before_switch(nullptr, to);
  raw_switch(from, to);
  __builtin_unreachable();
}

void arrive_on_fiber([[maybe_unused]] Fiber& host) {
#if SIMT_ASAN
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (host.bottom == nullptr) {
    host.bottom = static_cast<char*>(const_cast<void*>(bottom));
    host.size = size;
  }
#endif
}

FiberPool::~FiberPool() {
  for (const auto& fiber : all_) munmap(fiber->bottom - kGuardBytes, kGuardBytes + kStackBytes);
}

Fiber* FiberPool::allocate() {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuardBytes, PROT_NONE);
  all_.push_back(std::make_unique<Fiber>());
  all_.back()->bottom = static_cast<char*>(memory) + kGuardBytes;
  all_.back()->size = kStackBytes;
  return all_.back().get();
}

Fiber& FiberPool::take(void (*entry)()) {
  Fiber* fiber = free_.empty() ? allocate() : free_.back();
  if (!free_.empty()) free_.pop_back();
  // Tops at one page offset would all fall into the same few cache sets.
  const size_t colour = (reinterpret_cast<uintptr_t>(fiber->bottom) / (kGuardBytes + kStackBytes) * 7 % 64) * 64;
  prepare(*fiber, fiber->bottom + kStackBytes - colour, entry);
  return *fiber;
}

void FiberPool::reclaim_all() {
  free_.clear();
  for (const auto& fiber : all_) {
#if SIMT_ASAN
    __asan_unpoison_memory_region(fiber->bottom, fiber->size);
#endif
    free_.push_back(fiber.get());
  }
}

}  // namespace simt
