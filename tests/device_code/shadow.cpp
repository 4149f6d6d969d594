// Who read and wrote what since when, and which two accesses nothing orders. g++ -fsanitize=thread
// calls __tsan_read4 and the like at every access; the thread sanitizer itself is not linked, these
// functions stand in for it.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <sstream>
#include <unordered_map>
#include <vector>

#include "gpu.h"

namespace gpu {
namespace {

constexpr uintptr_t kPage = 4096, kGrain = 2;  // half types are the smallest numbers

struct Access {
  int32_t block = -1, thread = 0;
  int32_t block_rounds = 0, warp_rounds = 0, cluster_arrivals = 0;
  const void* caller = nullptr;

  bool by(const Access& other) const { return block == other.block && thread == other.thread; }
};

struct Cell {
  Access write, read, other_read;  // the last ones; the reads by different threads
};

struct Page {
  Cell cells[kPage / kGrain];
};

std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;

Page* last_page = nullptr;  // and its number: the next access often goes there too
uintptr_t last_number = 0;

Cell* find(uintptr_t address) {
  if (!last_page || last_number != address / kPage) {
    auto& page = pages[address / kPage];
    if (!page) page = std::make_unique<Page>();
    last_page = page.get();
    last_number = address / kPage;
  }
  return &last_page->cells[address % kPage / kGrain];
}

// Whether a barrier stands between `before` and what `now` does.
bool ordered(const Access& before, const Access& now, const Thread& thread) {
  if (before.block < 0 || before.by(now)) return true;
  const int64_t ranks = thread.block->cluster->ranks;
  if (before.block / ranks == now.block / ranks && before.cluster_arrivals < thread.cluster_waits) {
    return true;
  }
  if (before.block != now.block) return false;
  if (before.block_rounds < now.block_rounds) return true;
  return before.thread / kWarp == now.thread / kWarp && before.warp_rounds < now.warp_rounds;
}

// The source line of an address, as far as the tool that knows is there.
std::string line_of(const void* caller) {
  Dl_info module{};
  if (!dladdr(caller, &module)) return "";
  char command[4096], found[512] = "";
  const auto offset =
      static_cast<const char*>(caller) - static_cast<const char*>(module.dli_fbase) - 1;
  snprintf(command, sizeof command, "addr2line -s -e '%s' 0x%tx 2>/dev/null", module.dli_fname,
           offset);
  if (FILE* pipe = popen(command, "r")) {
    if (!fgets(found, sizeof found, pipe)) found[0] = 0;
    pclose(pipe);
  }
  std::string line = found;
  while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) line.pop_back();
  return " (" + line + ")";
}

std::string place(const void* address, const Thread& thread) {
  const auto* at = static_cast<const char*>(address);
  for (int64_t rank = 0; rank < thread.block->cluster->ranks; ++rank) {
    const char* memory = thread.block->cluster->memory[rank];
    if (at >= memory && at - memory < thread.block->cluster->bytes) {
      return "shared memory of rank " + std::to_string(rank) + " at " + std::to_string(at - memory);
    }
  }
  return "global memory";
}

void tell(const Access& before, bool wrote, const Access& now, bool writes, const void* address,
          const Thread& thread) {
  std::ostringstream text;
  text << "race in " << place(address, thread) << ": thread " << before.thread << " of block "
       << before.block << (wrote ? " wrote" : " read") << line_of(before.caller) << ", thread "
       << now.thread << " of block " << now.block << (writes ? " writes" : " reads")
       << line_of(now.caller) << ", and no barrier stands between";
  report(text.str());
}

// One access, in the launch that is running.
void look(const void* address, size_t bytes, bool writes, const void* caller,
          const Thread& thread) {
  if (on_any_stack(address)) {
    if (!on_own_stack(address)) report("a thread reaches into another thread's registers");
    return;
  }
  const auto at = reinterpret_cast<uintptr_t>(address);
  if (at % bytes != 0) {
    report("an access of " + std::to_string(bytes) + " bytes is misaligned" + line_of(caller));
  }
  const Access now{
      static_cast<int32_t>(thread.block->number),    static_cast<int32_t>(thread.index.x),
      static_cast<int32_t>(thread.block_rounds),     static_cast<int32_t>(thread.warp_rounds),
      static_cast<int32_t>(thread.cluster_arrivals), caller};
  for (uintptr_t part = at / kGrain * kGrain; part < at + bytes; part += kGrain) {
    Cell& cell = *find(part);
    if (!ordered(cell.write, now, thread)) {
      tell(cell.write, true, now, writes, address, thread);
    }
    if (!writes) {
      if (!cell.read.by(now)) cell.other_read = cell.read;
      cell.read = now;
      continue;
    }
    const Access& read = cell.read.by(now) ? cell.other_read : cell.read;
    if (!ordered(read, now, thread)) tell(read, false, now, writes, address, thread);
    cell.write = now;
  }
}

}  // namespace

void forget_memory() {
  pages.clear();
  last_page = nullptr;
}

void forget_memory(const void* begin, size_t bytes) {
  const auto first = reinterpret_cast<uintptr_t>(begin), end = first + bytes;
  for (uintptr_t page = first / kPage; page * kPage < end; ++page) {
    const auto found = pages.find(page);
    if (found == pages.end()) continue;
    for (uintptr_t at = std::max(first, page * kPage); at < std::min(end, (page + 1) * kPage);
         at += kGrain) {
      found->second->cells[at % kPage / kGrain] = Cell{};
    }
  }
}

void watch(const void* address, size_t bytes, bool writes, const void* caller) {
  // The linker may have given this file's own strings the watched copy of their code.
  static bool busy = false;
  const Thread* thread = current;
  if (!thread || busy || reported()) return;
  busy = true;
  look(address, bytes, writes, caller, *thread);
  busy = false;
}

}  // namespace gpu

// What the compiler calls. Atomic operations come from torch's headers, on the host alone.
extern "C" {
#define FI_HOOKS(SIZE)                                                                           \
  void __tsan_read##SIZE(void* at) { gpu::watch(at, SIZE, false, __builtin_return_address(0)); } \
  void __tsan_write##SIZE(void* at) { gpu::watch(at, SIZE, true, __builtin_return_address(0)); } \
  void __tsan_unaligned_read##SIZE(void* at) {                                                   \
    gpu::watch(at, SIZE, false, __builtin_return_address(0));                                    \
  }                                                                                              \
  void __tsan_unaligned_write##SIZE(void* at) {                                                  \
    gpu::watch(at, SIZE, true, __builtin_return_address(0));                                     \
  }
FI_HOOKS(1)
FI_HOOKS(2)
FI_HOOKS(4)
FI_HOOKS(8)
FI_HOOKS(16)
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(void*, size_t) {}
void __tsan_write_range(void*, size_t) {}

#define FI_ATOMICS(BITS, TYPE)                                                                     \
  TYPE __tsan_atomic##BITS##_load(const volatile TYPE* at, int) {                                  \
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                                  \
  }                                                                                                \
  void __tsan_atomic##BITS##_store(volatile TYPE* at, TYPE value, int) {                           \
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                                 \
  }                                                                                                \
  TYPE __tsan_atomic##BITS##_exchange(volatile TYPE* at, TYPE value, int) {                        \
    return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);                                       \
  }                                                                                                \
  TYPE __tsan_atomic##BITS##_fetch_add(volatile TYPE* at, TYPE value, int) {                       \
    return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);                                        \
  }                                                                                                \
  TYPE __tsan_atomic##BITS##_fetch_sub(volatile TYPE* at, TYPE value, int) {                       \
    return __atomic_fetch_sub(at, value, __ATOMIC_SEQ_CST);                                        \
  }                                                                                                \
  int __tsan_atomic##BITS##_compare_exchange_strong(volatile TYPE* at, TYPE* expected, TYPE value, \
                                                    int, int) {                                    \
    return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST,               \
                                       __ATOMIC_SEQ_CST);                                          \
  }                                                                                                \
  int __tsan_atomic##BITS##_compare_exchange_weak(volatile TYPE* at, TYPE* expected, TYPE value,   \
                                                  int, int) {                                      \
    return __atomic_compare_exchange_n(at, expected, value, true, __ATOMIC_SEQ_CST,                \
                                       __ATOMIC_SEQ_CST);                                          \
  }
FI_ATOMICS(8, uint8_t)
FI_ATOMICS(32, uint32_t)
FI_ATOMICS(64, uint64_t)
void __tsan_atomic_thread_fence(int) {}
}
