// Plans a launch of the discrepancy from the sizes and the limits of the GPU: shared memory, tensor
// cores, and how a cluster divides an image.
#pragma once

#include "../kernels/discrepancy_backward_tensor_cores.cuh"
#include "../kernels/discrepancy_cluster.cuh"
#include "cluster_launcher.h"

namespace fastinterp {

// Lays out a block's shared memory, one array after another.
struct Pieces {
  int64_t end = 0;

  template <typename Element>
  int64_t take(int64_t count) {
    constexpr int64_t kAlign = 32;  // the alignment that WMMA needs
    const int64_t begin = (end + kAlign - 1) / kAlign * kAlign;
    end = begin + count * static_cast<int64_t>(sizeof(Element));
    return begin;
  }
};

// Blocks per image: one for each tile, up to the limit. A single tile with many classes is divided
// until every multiprocessor has a block, and no further, since each block reads all features.
inline int64_t ranks_of(const Sizes& sizes, const ClusterLimits& limits) {
  const int64_t tiles = tiles_of(sizes), class_tiles = class_tiles_of(sizes);
  int64_t ranks = 1;
  if (tiles > 1) {
    while (ranks < tiles && ranks < limits.ranks) ranks *= 2;
    return ranks;
  }
  while (2 * ranks <= class_tiles && 2 * ranks <= limits.ranks &&
         2 * ranks * sizes.images <= limits.multiprocessors) {
    ranks *= 2;
  }
  return ranks;
}

// Below these sizes the tiles of the tensor cores would be mostly padding.
template <typename T>
bool uses_tensor_cores(const Sizes& sizes, const ClusterLimits& limits) {
  return sizeof(T) == 2 && limits.tensor_cores && sizes.channels >= 64 && sizes.classes >= 32;
}

// ranks is 0 if the signs do not fit into the shared memory of a block. Features are staged if they
// fit too.
template <typename T>
ClusterPlan cluster_plan(const DiscrepancyParams<T>& args, const ClusterLimits& limits) {
  const auto& sizes = args.sizes;
  const int64_t tiles = tiles_of(sizes), ranks = ranks_of(sizes, limits);
  ClusterPlan plan{};
  Pieces pieces;
  plan.by_classes = tiles == 1;
  plan.tiles = (tiles + ranks - 1) / ranks;
  pieces.take<AccType<T>>(kSharedAccumulators);
  plan.sums = pieces.take<double>(2 * sizes.classes);
  plan.totals = pieces.take<double>(2 * sizes.classes);
  plan.coefficients = pieces.take<AccType<T>>(2 * sizes.classes);
  plan.signs = pieces.take<uint32_t>(class_tiles_of(sizes) * plan.tiles * kTilePositions);
  plan.bytes = pieces.end;
  // Without clusters, one block per image would leave most of a GPU idle: larger maps take three
  // launches, with one block per tile.
  const bool shares = limits.ranks > 1 || tiles == 1;
  if (!shares || plan.bytes > limits.bytes) return plan;
  plan.ranks = ranks;
  if (sizes.channels > limits.bytes) return plan;  // staging computes in int
  const bool multiplies = uses_tensor_cores<T>(sizes, limits);
  const int64_t storage = multiplies ? pieces.take<ClassStorage<T>>(1) : 0;
  const int64_t features = pieces.take<T>(staged_size(args.features, sizes));
  const int64_t features_adv = pieces.take<T>(staged_size(args.features_adv, sizes));
  const int64_t backward_end = multiplies ? storage + int64_t{sizeof(ChannelStorage<T>)} : 0;
  const int64_t bytes = backward_end > pieces.end ? backward_end : pieces.end;
  if (bytes > limits.bytes) return plan;
  plan.features = features;
  plan.features_adv = features_adv;
  plan.storage = storage;
  plan.bytes = bytes;
  return plan;
}

// bytes is 0 if the backward pass does not use tensor cores.
template <typename T>
BackwardPlan backward_plan(const DiscrepancyParams<T>& args, const ClusterLimits& limits) {
  BackwardPlan plan{};
  if (!uses_tensor_cores<T>(args.sizes, limits) || args.sizes.channels > limits.bytes) return plan;
  Pieces pieces;
  plan.constants = pieces.take<float>(kThreads);
  plan.storage = pieces.take<ClassStorage<T>>(1);
  plan.features = pieces.take<T>(staged_size(args.features, args.sizes));
  plan.features_adv = pieces.take<T>(staged_size(args.features_adv, args.sizes));
  const int64_t backward_end = plan.storage + int64_t{sizeof(ChannelStorage<T>)};
  const int64_t bytes = backward_end > pieces.end ? backward_end : pieces.end;
  plan.bytes = bytes > limits.bytes ? 0 : bytes;
  return plan;
}

}  // namespace fastinterp
