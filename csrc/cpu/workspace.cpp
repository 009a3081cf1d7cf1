#include "workspace.h"

namespace pygan::cpu {
namespace {

struct Kept {
  char* memory = nullptr;
  size_t bytes = 0;
  bool lent = false;
  ~Kept() { std::free(memory); }
};

thread_local Kept kept_of_thread[Workspace::kKeptBuffers];

}  // namespace

Workspace::Workspace(size_t bytes) {
  if (bytes == 0) {
    kept_ = kKeptBuffers;
    begin_ = next_ = nullptr;
    return;
  }
  for (; bytes <= kKept && kept_ < kKeptBuffers; ++kept_) {
    Kept& kept = kept_of_thread[kept_];
    if (kept.lent) continue;
    if (bytes > kept.bytes) {
      std::free(kept.memory);
      kept.memory = nullptr;
      kept.bytes = 0;
      kept.memory = static_cast<char*>(allocate(bytes));
      kept.bytes = bytes;
    }
    kept.lent = true;
    begin_ = next_ = kept.memory;
    return;
  }
  kept_ = kKeptBuffers;
  begin_ = next_ = static_cast<char*>(allocate(bytes));
}

Workspace::~Workspace() {
  if (kept_ < kKeptBuffers)
    kept_of_thread[kept_].lent = false;
  else
    std::free(begin_);
}

}  // namespace pygan::cpu
