#include "workspace.h"

namespace pygan::cpu {
namespace {

struct Kept {
  char* memory = nullptr;
  size_t bytes = 0;
  bool lent = false;
  ~Kept() { std::free(memory); }
};

thread_local Kept kept;

}  // namespace

Workspace::Workspace(size_t bytes) : borrowed_(bytes <= kKept && !kept.lent) {
  if (bytes == 0) bytes = 64;
  if (!borrowed_) {
    begin_ = next_ = static_cast<char*>(allocate(bytes));
    return;
  }
  if (bytes > kept.bytes) {
    std::free(kept.memory);
    kept.memory = nullptr;
    kept.bytes = 0;
    kept.memory = static_cast<char*>(allocate(bytes));
    kept.bytes = bytes;
  }
  kept.lent = true;
  begin_ = next_ = kept.memory;
}

Workspace::~Workspace() {
  if (borrowed_)
    kept.lent = false;
  else
    std::free(begin_);
}

}  // namespace pygan::cpu
