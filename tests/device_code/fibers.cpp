// Fibers, one for each thread of a cluster, and the launch that runs them in turn.
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "gpu.h"

namespace gpu {

Thread* current = nullptr;

namespace {

constexpr size_t kStack = 128 * 1024;
constexpr int kFibers = kMaxThreads * kMaxRanks;

struct Fiber {
  Thread thread;
  void* place[5];  // of __builtin_setjmp; swapcontext would make a system call each time
  ucontext_t first;
  bool begun = false;
};

struct Fibers {
  std::vector<Fiber> all{kFibers};
  char* stacks;

  Fibers() {
    void* found = mmap(nullptr, kStack * kFibers, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) throw std::runtime_error("no memory for the fibers' stacks");
    stacks = static_cast<char*>(found);
  }
};

Fibers* fibers = nullptr;  // replaced, never freed, after threads were left waiting
void* scheduler[5];
const std::function<void()>* kernel_now = nullptr;
Cluster cluster;  // kernels read these, so they may not lie where shared memory lay before
Block cluster_blocks[kMaxRanks];
std::string problem;
int64_t moves = 0;  // waits begun and ended, threads ended: if none is, nobody can go on

// The compiler must neither see through these three, nor expect a jump to a saved place.
__attribute__((noipa)) void jump(void** place) { __builtin_longjmp(place, 1); }

__attribute__((noipa)) void leave(Fiber& fiber) {
  if (!__builtin_setjmp(fiber.place)) jump(scheduler);
}

Fiber* running = nullptr;

void live() {
  for (;;) {
    Fiber& self = *running;
    (*kernel_now)();
    self.thread.done = true;
    ++moves;
    leave(self);
  }
}

__attribute__((noipa)) void enter(Fiber& fiber) {
  running = &fiber;
  current = &fiber.thread;
  if (!__builtin_setjmp(scheduler)) {
    if (fiber.begun) jump(fiber.place);
    fiber.begun = true;
    getcontext(&fiber.first);
    fiber.first.uc_stack.ss_sp = fibers->stacks + (&fiber - fibers->all.data()) * kStack;
    fiber.first.uc_stack.ss_size = kStack;
    fiber.first.uc_link = nullptr;
    makecontext(&fiber.first, live, 0);
    setcontext(&fiber.first);
  }
  current = nullptr;
}

void arrive(Barrier& barrier) {
  if (++barrier.arrived == barrier.members) barrier.arrived = 0, ++barrier.rounds;
}

// Until the barrier has gone through so many rounds.
void wait(const Barrier& barrier, int64_t rounds, const char* what) {
  ++moves;
  current->waits_for = what;
  while (barrier.rounds < rounds) leave(*running);
  ++moves;
}

// Shared memory is exactly as large as asked for, aligned as declared and no better, and holds NaN.
struct SharedMemory {
  char* data;

  explicit SharedMemory(size_t bytes) {
    void* found = nullptr;
    if (posix_memalign(&found, 64, bytes + 32)) throw std::bad_alloc();
    data = static_cast<char*>(found) + 32;
    forget_memory(data, bytes);  // something else may have lain there before
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (size_t i = 0; i + sizeof nan <= bytes; i += sizeof nan) memcpy(data + i, &nan, sizeof nan);
  }
  ~SharedMemory() { free(data - 32); }
  SharedMemory(const SharedMemory&) = delete;
};

void place_block(Block& block, const Launch& launch, int64_t number, int64_t rank) {
  const auto threads = static_cast<int64_t>(launch.block.x);
  block = Block{};
  const int64_t x = number % launch.grid.x, rest = number / launch.grid.x;
  block.index = dim3(static_cast<unsigned>(x), static_cast<unsigned>(rest % launch.grid.y),
                     static_cast<unsigned>(rest / launch.grid.y));
  block.size = launch.block;
  block.number = number;
  block.rank = rank;
  block.barrier.members = threads;
  for (int64_t w = 0; w * kWarp < threads; ++w) {
    block.warps[w].barrier.members = std::min<int64_t>(kWarp, threads - w * kWarp);
  }
}

std::string name_of(const Thread& thread) {
  return "thread " + std::to_string(thread.index.x) + " of block " +
         std::to_string(thread.block->number);
}

// Until all threads have ended, or none can go on.
void run_cluster(std::vector<Fiber*>& threads) {
  for (size_t left = threads.size(); left > 0;) {
    const int64_t before = moves;
    left = 0;
    for (Fiber* fiber : threads) {
      if (fiber->thread.done) continue;
      enter(*fiber);
      left += !fiber->thread.done;
    }
    if (left == 0 || moves > before) continue;
    std::string stuck;
    for (const Fiber* fiber : threads) {
      if (fiber->thread.done || !stuck.empty()) continue;
      stuck = name_of(fiber->thread) + " waits for ever at " + fiber->thread.waits_for;
    }
    report(stuck);
    fibers = nullptr;
    return;
  }
}

}  // namespace

void meet(Barrier& barrier, const char* what) {
  const int64_t rounds = barrier.rounds + 1;
  arrive(barrier);
  wait(barrier, rounds, what);
}

void sync_block() {
  meet(current->block->barrier, "__syncthreads");
  ++current->block_rounds;
}

void sync_warp() {
  meet(current->warp().barrier, "__syncwarp");
  ++current->warp_rounds;
}

void arrive_at_cluster() {
  if (current->cluster_arrivals != current->cluster_waits) {
    report("a thread arrives twice at its cluster's barrier");
  }
  ++current->cluster_arrivals;
  arrive(current->block->cluster->barrier);
}

void wait_for_cluster() {
  wait(current->block->cluster->barrier, current->cluster_arrivals, "its cluster's barrier");
  current->cluster_waits = current->cluster_arrivals;
}

void shift_down(void* value, size_t bytes, unsigned delta) {
  const int lane = current->lane();
  Warp& warp = current->warp();
  memcpy(warp.slots[lane], value, bytes);
  meet(warp.barrier, "__shfl_down_sync");
  if (lane + delta < kWarp) memcpy(value, warp.slots[lane + delta], bytes);
  meet(warp.barrier, "__shfl_down_sync");
}

bool on_any_stack(const void* address) {
  const char* at = static_cast<const char*>(address);
  return fibers && at >= fibers->stacks && at < fibers->stacks + kStack * kFibers;
}

bool on_own_stack(const void* address) {
  const char* begin = fibers->stacks + (running - fibers->all.data()) * kStack;
  const char* at = static_cast<const char*>(address);
  return at >= begin && at < begin + kStack;
}

void report(const std::string& found) {
  if (problem.empty()) problem = found;
}

bool reported() { return !problem.empty(); }

void run(const Launch& launch, const std::function<void()>& kernel) {
  if (launch.block.x > kMaxThreads || launch.ranks > kMaxRanks) {
    throw std::runtime_error("the launch is larger than this emulation's blocks or clusters");
  }
  if (launch.grid.x % launch.ranks != 0) throw std::runtime_error("clusters do not fill the grid");
  kernel_now = &kernel;
  forget_memory();
  const int64_t blocks = int64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  for (int64_t first = 0; first < blocks; first += launch.ranks) {
    if (!fibers) fibers = new Fibers;
    std::vector<std::unique_ptr<SharedMemory>> memory;
    std::vector<Fiber*> threads;
    cluster = Cluster{};
    cluster.ranks = launch.ranks;
    cluster.bytes = static_cast<int64_t>(launch.shared_bytes);
    cluster.barrier.members = launch.ranks * launch.block.x;
    for (int64_t rank = 0; rank < launch.ranks; ++rank) {
      memory.push_back(std::make_unique<SharedMemory>(launch.shared_bytes));
      Block& block = cluster_blocks[rank];
      place_block(block, launch, first + rank, rank);
      block.memory = cluster.memory[rank] = memory.back()->data;
      block.cluster = &cluster;
      for (unsigned t = 0; t < launch.block.x; ++t) {
        Fiber& fiber = fibers->all[threads.size()];
        fiber.thread = Thread{};
        fiber.thread.index = dim3(t, 0, 0);
        fiber.thread.block = &block;
        fiber.thread.done = false;
        threads.push_back(&fiber);
      }
    }
    run_cluster(threads);
  }
  const std::string found = std::exchange(problem, {});
  if (!found.empty()) throw std::runtime_error(found);
}

}  // namespace gpu
