// The part of cooperative groups that cluster.h uses, on fibers.
#pragma once

#include "gpu.h"

namespace cooperative_groups {

struct cluster_group {
  unsigned num_blocks() const { return static_cast<unsigned>(cluster().ranks); }
  unsigned block_rank() const { return static_cast<unsigned>(gpu::current->block->rank); }

  void barrier_arrive() const { gpu::arrive_at_cluster(); }
  void barrier_wait() const { gpu::wait_for_cluster(); }
  void sync() const {
    barrier_arrive();
    barrier_wait();
  }

  template <typename T>
  T* map_shared_rank(T* own, int rank) const {
    if (rank < 0 || rank >= cluster().ranks) gpu::report("a cluster has no block of that rank");
    const char* base = gpu::current->block->memory;
    return reinterpret_cast<T*>(cluster().memory[rank] +
                                (reinterpret_cast<const char*>(own) - base));
  }

 private:
  static gpu::Cluster& cluster() { return *gpu::current->block->cluster; }
};

inline cluster_group this_cluster() { return {}; }

}  // namespace cooperative_groups
