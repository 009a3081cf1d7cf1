// Who shares the work of an op. Tasks are handed out one by one, so their borders, and with them the bits of the
// result, do not depend on how many threads there are or on which of them is late.
#pragma once

#include <cstdint>

namespace pygan::cpu {

class Workers {
 public:
  virtual ~Workers() = default;

  // f(task, thread) for every task in [0, count); returns when all are done. `flops` is the work in all of them:
  // below `worth` one thread is done as soon.
  template <class F>
  void each(int64_t count, double flops, const F& f) const {
    if (threads < 2 || count < 2 || flops < worth) {
      for (int64_t task = 0; task < count; ++task) f(task, 0);
    } else {
      share(
          count, [](const void* self, int64_t task, int thread) { (*static_cast<const F*>(self))(task, thread); }, &f);
    }
  }

  const int threads;
  const double worth;

 protected:
  using Call = void (*)(const void* f, int64_t task, int thread);

  Workers(int threads, double worth) : threads(threads), worth(worth) {}
  virtual void share(int64_t count, Call call, const void* f) const = 0;
};

// The threads that torch's own ops use. Waking them costs some microseconds, more on a busy machine.
class OpenMp : public Workers {
 public:
  explicit OpenMp(int threads);

 private:
  void share(int64_t count, Call call, const void* f) const override;
};

}  // namespace pygan::cpu
