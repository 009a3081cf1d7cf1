// Threads that stay awake from one phase of an iteration to the next.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "subnormals.h"
#include "workers.h"

namespace pygan::cpu {

// The calling thread and threads - 1 others, which live as long as the object. A phase is over when its tasks are
// done: a member that the system has not scheduled and that holds no task is not waited for. To all of them, the
// calling thread too, subnormal numbers are zero.
class ThreadTeam : public Workers {
 public:
  // Some microseconds of work: handing tasks over costs less than one.
  static constexpr double kWorth = 5e5;

  explicit ThreadTeam(int threads);
  ~ThreadTeam() override;
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

 private:
  void share(int64_t count, Call call, const void* f) const override;
  void work(int thread) const;
  void stay(int thread) const;

  // Phase, number of tasks and next task in one word: a late member cannot take a task of a phase that is over.
  alignas(64) mutable std::atomic<uint64_t> ticket_{0};
  alignas(64) mutable std::atomic<int64_t> done_{0};
  alignas(64) mutable Call call_ = nullptr;
  mutable const void* f_ = nullptr;
  std::atomic<bool> leaving_{false};
  const SubnormalsAreZero for_the_caller_;
  std::vector<std::thread> others_;
};

}  // namespace pygan::cpu
