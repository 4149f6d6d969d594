// A GPU's threads on a CPU, so that the device code itself (DeviceBlock, the kernels, the cluster
// launch) runs where there is no GPU. Every thread is a fiber that runs until it waits: at a
// barrier of its block, warp or cluster. What threads read and write is watched (shadow.cpp), as
// compute-sanitizer would; a barrier that some threads never reach is reported too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#define __host__
#define __device__
#define __global__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define FI_SHARED_MEMORY(name) char* const name = gpu::current->block->memory

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace gpu {

constexpr int kWarp = 32;
constexpr int kMaxThreads = 256;  // of a block
constexpr int kMaxRanks = 8;      // blocks of a cluster

// Threads that wait for each other. Nobody leaves before all have come.
struct Barrier {
  int64_t members = 0, arrived = 0, rounds = 0;
};

struct Warp {
  Barrier barrier;
  alignas(16) char slots[kWarp][16];  // registers that the others read
};

struct Cluster {
  Barrier barrier;
  int64_t ranks = 1;
  char* memory[kMaxRanks] = {};  // of its blocks
  int64_t bytes = 0;             // of each
};

struct Block {
  dim3 index, size;
  int64_t number = 0;  // in the launch; blocks of a cluster follow each other
  int64_t rank = 0;
  char* memory = nullptr;
  Barrier barrier;
  Warp warps[kMaxThreads / kWarp];
  Cluster* cluster = nullptr;
};

struct Thread {
  dim3 index;
  Block* block = nullptr;
  int64_t block_rounds = 0, warp_rounds = 0;  // barriers it has left
  int64_t cluster_arrivals = 0, cluster_waits = 0;
  const char* waits_for = nullptr;
  bool done = true;

  int lane() const { return static_cast<int>(index.x) % kWarp; }
  Warp& warp() const { return block->warps[index.x / kWarp]; }
};

extern Thread* current;  // null outside of kernels

// fibers.cpp, which is not watched: what threads do to each other.
void meet(Barrier& barrier, const char* what);  // to come, and to wait for the others
void sync_block();
void sync_warp();
void arrive_at_cluster();
void wait_for_cluster();
void shift_down(void* value, size_t bytes, unsigned delta);  // reads another thread's register

struct Launch {
  dim3 grid, block;
  size_t shared_bytes = 0;
  int64_t ranks = 1;
};

// Runs the kernel for every thread of the grid; throws what the watching found.
void run(const Launch& launch, const std::function<void()>& kernel);

// Stores the first fault of a kernel, which run() throws at the end of the launch.
void report(const std::string& problem);

// shadow.cpp: what is known of memory, for one launch.
void forget_memory();
void forget_memory(const void* begin, size_t bytes);
void watch(const void* address, size_t bytes, bool writes, const void* caller);

// fibers.cpp: what shadow.cpp asks.
bool on_any_stack(const void* address);
bool on_own_stack(const void* address);  // of the thread that runs
bool reported();

}  // namespace gpu

// Objects, not macros: the launchers' structures have members of these names.
namespace gpu {

template <const dim3& (*Of)()>
struct Coordinates {
  template <unsigned dim3::* Which>
  struct One {
    operator unsigned() const { return Of().*Which; }
  };
  One<&dim3::x> x;
  One<&dim3::y> y;
  One<&dim3::z> z;
};

inline const dim3& thread_index() { return current->index; }
inline const dim3& block_index() { return current->block->index; }
inline const dim3& block_size() { return current->block->size; }

}  // namespace gpu

constexpr gpu::Coordinates<gpu::thread_index> threadIdx{};
constexpr gpu::Coordinates<gpu::block_index> blockIdx{};
constexpr gpu::Coordinates<gpu::block_size> blockDim{};

inline void __syncthreads() { gpu::sync_block(); }
inline void __syncwarp() { gpu::sync_warp(); }

// Exchanges registers. It does not order accesses to memory.
template <typename T>
T __shfl_down_sync(unsigned /*mask*/, T value, unsigned delta) {
  static_assert(sizeof(T) <= 16);
  gpu::shift_down(&value, sizeof(T), delta);
  return value;
}

[[noreturn]] inline void __trap() { __builtin_trap(); }
