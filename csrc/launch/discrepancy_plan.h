// How the blocks of the discrepancy use shared memory and tensor cores, and how a cluster shares
// out an image, from the sizes and the GPU's limits.
#pragma once

#include "../kernels/discrepancy_backward_tensor_cores.cuh"
#include "../kernels/discrepancy_cluster.cuh"
#include "cluster_launcher.h"

namespace fastinterp::blocks {

// Hands out a block's shared memory, piece after piece.
struct Pieces {
  int64_t end = 0;

  template <typename Element>
  int64_t take(int64_t count) {
    constexpr int64_t kAlign = 32;  // what tensor cores ask for
    const int64_t begin = (end + kAlign - 1) / kAlign * kAlign;
    end = begin + count * static_cast<int64_t>(sizeof(Element));
    return begin;
  }
};

// Blocks for each image: as many as it has tiles, up to the limit. A single tile with many classes
// is shared out until every multiprocessor has a block; each of those stages the features anew,
// so no further.
inline int64_t ranks_of(const Sizes& sizes, const ClusterLimits& limits) {
  const int64_t tiles = tiles_of(sizes), groups = groups_of(sizes);
  int64_t ranks = 1;
  if (tiles > 1) {
    while (ranks < tiles && ranks < limits.ranks) ranks *= 2;
    return ranks;
  }
  while (2 * ranks <= groups && 2 * ranks <= limits.ranks &&
         2 * ranks * sizes.images <= limits.multiprocessors) {
    ranks *= 2;
  }
  return ranks;
}

// Below these sizes a tensor core's tiles would be padding for the most part.
template <typename T>
bool multiplies_tiles(const Sizes& sizes, const ClusterLimits& limits) {
  return sizeof(T) == 2 && limits.tensor_cores && sizes.channels >= 64 && sizes.classes >= 32;
}

// None where a block's shared memory would not hold the signs. Features are staged where they fit
// beside them.
template <typename T>
ClusterPlan cluster_plan(const Discrepancy<T>& args, const ClusterLimits& limits) {
  const auto& sizes = args.sizes;
  const int64_t tiles = tiles_of(sizes), ranks = ranks_of(sizes, limits);
  ClusterPlan plan{};
  Pieces pieces;
  plan.by_classes = tiles == 1;
  plan.tiles = (tiles + ranks - 1) / ranks;
  pieces.take<Acc<T>>(kShared);
  plan.sums = pieces.take<double>(2 * sizes.classes);
  plan.totals = pieces.take<double>(2 * sizes.classes);
  plan.coefficients = pieces.take<Acc<T>>(2 * sizes.classes);
  plan.signs = pieces.take<uint32_t>(groups_of(sizes) * plan.tiles * kLanes);
  plan.bytes = pieces.end;
  // Without clusters, one block for each image would leave a GPU idle; larger maps go tile by tile.
  const bool shares = limits.ranks > 1 || tiles == 1;
  if (!shares || plan.bytes > limits.bytes) return plan;
  plan.ranks = ranks;
  if (sizes.channels > limits.bytes) return plan;  // so that int holds what staging computes
  const bool multiplies = multiplies_tiles<T>(sizes, limits);
  const int64_t work = multiplies ? pieces.take<ClassWork<T>>(1) : 0;
  const int64_t before = pieces.take<T>(staged_size(args.before, sizes));
  const int64_t after = pieces.take<T>(staged_size(args.after, sizes));
  const int64_t spreading = multiplies ? work + int64_t{sizeof(ChannelWork<T>)} : 0;
  const int64_t bytes = spreading > pieces.end ? spreading : pieces.end;
  if (bytes > limits.bytes) return plan;
  plan.before = before;
  plan.after = after;
  plan.work = work;
  plan.bytes = bytes;
  return plan;
}

// Without bytes where the backward pass does not go to tensor cores.
template <typename T>
BackwardPlan backward_plan(const Discrepancy<T>& args, const ClusterLimits& limits) {
  BackwardPlan plan{};
  if (!multiplies_tiles<T>(args.sizes, limits) || args.sizes.channels > limits.bytes) return plan;
  Pieces pieces;
  plan.constants = pieces.take<float>(kThreads);
  plan.work = pieces.take<ClassWork<T>>(1);
  plan.before = pieces.take<T>(staged_size(args.before, args.sizes));
  plan.after = pieces.take<T>(staged_size(args.after, args.sizes));
  const int64_t spreading = plan.work + int64_t{sizeof(ChannelWork<T>)};
  const int64_t bytes = spreading > pieces.end ? spreading : pieces.end;
  plan.bytes = bytes > limits.bytes ? 0 : bytes;
  return plan;
}

}  // namespace fastinterp::blocks
