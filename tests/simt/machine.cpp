#include "machine.h"

#include <algorithm>
#include <cstdio>
#include <numeric>

namespace simt {

Machine machine;

namespace {

constexpr uint64_t kSpinLimit = uint64_t(1) << 22;

bool same_site(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

std::string describe(const Site& site) {
  if (site.file != nullptr) return std::string(site.file) + ":" + std::to_string(site.line);
  return observer->locate(site.pc);
}

}  // namespace

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
  combine(mask, gathering->slots, site);
  warp.gatherings.erase(gathering);
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

}  // namespace simt
