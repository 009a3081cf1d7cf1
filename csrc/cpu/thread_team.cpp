#include "thread_team.h"

#include <omp.h>

#include <algorithm>
#include <new>
#include <system_error>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pygan::cpu {
namespace {

constexpr int kFieldBits = 24;
constexpr uint64_t kField = (uint64_t(1) << kFieldBits) - 1;
constexpr int64_t kMostTasks = int64_t(1) << 20;

uint64_t next_of(uint64_t ticket) { return ticket & kField; }
uint64_t count_of(uint64_t ticket) { return ticket >> kFieldBits & kField; }

// Where OpenMP binds its threads to places it has bound the calling thread, and a new one would inherit its place.
void take_place(int thread) {
#if defined(__linux__)
  const int places = omp_get_num_places();
  if (places < 2) return;
  const int place = thread % places;
  std::vector<int> processors(static_cast<size_t>(omp_get_place_num_procs(place)));
  omp_get_place_proc_ids(place, processors.data());
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int processor : processors) CPU_SET(processor, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
#else
  (void)thread;
#endif
}

// Waits a little, then lets others run: the machine may have fewer free cores than the team has members.
class Patience {
 public:
  void wait() {
    if (++spins_ < 2000) {
#if defined(__x86_64__)
      _mm_pause();
#endif
    } else {
      std::this_thread::yield();
    }
  }

 private:
  int spins_ = 0;
};

}  // namespace

ThreadTeam::ThreadTeam(int threads) : Workers(threads, kWorth) {
  try {
    others_.reserve(size_t(threads));
    for (int thread = 1; thread < threads; ++thread) others_.emplace_back([this, thread] { stay(thread); });
  } catch (const std::system_error&) {
    // The system gives no more: those that there are do the work, to the same bits.
  } catch (const std::bad_alloc&) {
  }
}

ThreadTeam::~ThreadTeam() {
  leaving_.store(true, std::memory_order_relaxed);
  for (std::thread& other : others_) other.join();
}

void ThreadTeam::share(int64_t count, Call call, const void* f) const {
  // Nobody reads these: every task of the last phase was taken and done.
  for (int64_t first = 0; first < count; first += kMostTasks) {
    const int64_t some = std::min(kMostTasks, count - first);
    struct Slice {
      Call call;
      const void* f;
      int64_t first;
    } slice{call, f, first};
    call_ = [](const void* self, int64_t task, int thread) {
      const Slice& slice = *static_cast<const Slice*>(self);
      slice.call(slice.f, slice.first + task, thread);
    };
    f_ = &slice;
    done_.store(0, std::memory_order_relaxed);
    const uint64_t phase = (ticket_.load(std::memory_order_relaxed) >> 2 * kFieldBits) + 1;
    ticket_.store(phase << 2 * kFieldBits | uint64_t(some) << kFieldBits, std::memory_order_release);
    work(0);
    Patience patience;
    while (done_.load(std::memory_order_acquire) < some) patience.wait();
  }
}

void ThreadTeam::work(int thread) const {
  for (;;) {
    uint64_t ticket = ticket_.load(std::memory_order_relaxed);
    if (next_of(ticket) >= count_of(ticket)) return;
    ticket = ticket_.fetch_add(1, std::memory_order_acquire);
    if (next_of(ticket) >= count_of(ticket)) return;
    call_(f_, int64_t(next_of(ticket)), thread);
    done_.fetch_add(1, std::memory_order_release);
  }
}

void ThreadTeam::stay(int thread) const {
  const SubnormalsAreZero for_this_thread;
  take_place(thread);
  Patience patience;
  while (!leaving_.load(std::memory_order_relaxed)) {
    const uint64_t ticket = ticket_.load(std::memory_order_relaxed);
    if (next_of(ticket) < count_of(ticket)) {
      work(thread);
      patience = {};
    } else {
      patience.wait();
    }
  }
}

}  // namespace pygan::cpu
