// products.h for tensor cores: half types, many channels and classes, features staged.
#pragma once

#include "staging.cuh"
#include "store_tile.cuh"
#include "tile_product.cuh"

namespace fastinterp {

constexpr int kDepth = 256;  // channels whose weights are staged at a time
constexpr int kDepthPitch = kDepth + 8;
constexpr int kSide = 64;  // channels and classes of a gradient's product at a time
constexpr int kSidePitch = kSide + 8;
constexpr int kSumPitch = kLanes + 4;
static_assert(kSide == kSlices * kTile && kLanes == kSlices * kTile && kGroup == kTile);
static_assert(kChannelsAtOnce == kTile);
static_assert(kThreads / kWarp == 2 * kSlices, "a warp for each of two fields' four tiles");

FI_HD int whole_tiles(int64_t count) {
  return static_cast<int>((count + kTile - 1) / kTile * kTile);
}

// Shared memory of class_tiles and of channel_tiles.
template <typename T>
struct ClassWork {
  alignas(32) T weight[kTile * kDepthPitch];
  alignas(32) float sums[2 * kTile * kSumPitch];  // W A and W A'

  // W (A' - A), or W A', of class c of the group.
  FI_HD float map(int lane, int field, int c) const {
    const float with = sums[(kTile + c) * kSumPitch + lane];
    return field ? with : with - sums[c * kSumPitch + lane];
  }
};
template <typename T>
struct ChannelWork {
  alignas(32) T weight[kSide * kSidePitch];  // [classes, channels]
  alignas(32) T values[kSide * kSidePitch];  // [classes, positions]
  alignas(32) float sums[kSide * kSumPitch];

  FI_HD Room<T> room() { return {values, kSide * kSidePitch}; }
};

// work.sums of one group of classes on one tile. A and A' are multiplied apart: in float32, what
// their difference loses is far below what half types lose, and neither factor is rounded.
template <typename T, typename Block>
FI_HD void class_tiles(Block& block, ClassWork<T>& work, const T* weight, const Sizes& sizes,
                       int64_t first_class, const StagedTile<T>& before,
                       const StagedTile<T>& after) {
  const int width = whole_tiles(sizes.positions < kLanes ? sizes.positions : kLanes);
  block.each(2 * kTile * kSumPitch, [&](int64_t i) { work.sums[i] = 0; });
  for (int64_t begin = 0; begin < sizes.channels; begin += kDepth) {
    const int64_t left = sizes.channels - begin;
    const int depth = whole_tiles(left < kDepth ? left : kDepth);
    block.each(kTile * depth, [&](int64_t i) {
      const int64_t c = first_class + i / depth, k = begin + i % depth;
      const bool inside = c < sizes.classes && k < sizes.channels;
      work.weight[i / depth * kDepthPitch + i % depth] =
          inside ? weight[c * sizes.channels + k] : T(0);
    });
    block.each_warp([&](int warp) {
      const int field = warp / kSlices, column = warp % kSlices * kTile;
      if (column >= width) return;
      const StagedTile<T> maps = field ? after : before;
      float* sums = work.sums + field * kTile * kSumPitch + column;
      if (maps.position_stride == 1) {
        TileProduct<Block>::template add<true, true>(work.weight, kDepthPitch,
                                                     &maps.at(begin, column), maps.channel_stride,
                                                     depth, sums, kSumPitch);
      } else {
        TileProduct<Block>::template add<true, false>(work.weight, kDepthPitch,
                                                      &maps.at(begin, column), maps.position_stride,
                                                      depth, sums, kSumPitch);
      }
    });
  }
}

// channel_product of one field: value(c, lane) is rounded to T once. When emit is called, nobody
// needs work.values any more.
template <typename T, typename Block, typename Value, typename Emit>
FI_HD void channel_tiles(Block& block, ChannelWork<T>& work, const T* weight, const Sizes& sizes,
                         int64_t tile, const Channels& part, const Value& value, const Emit& emit) {
  static_assert(kSide == kWide);
  const int64_t left = sizes.positions - tile * kLanes, count = left < kLanes ? left : kLanes;
  for (int64_t first = part.begin; first < part.end; first += kSide) {
    block.each(kSide * kSumPitch, [&](int64_t i) { work.sums[i] = 0; });
    for (int64_t begin = 0; begin < sizes.classes; begin += kSide) {
      const int64_t classes = sizes.classes - begin;
      const int depth = whole_tiles(classes < kSide ? classes : kSide);
      block.each(depth * kSide, [&](int64_t i) {
        const int64_t c = begin + i / kSide, k = first + i % kSide, lane = i % kSide;
        const int64_t at = i / kSide * kSidePitch + i % kSide;
        const bool inside = c < sizes.classes;
        work.weight[at] = inside && k < sizes.channels ? weight[c * sizes.channels + k] : T(0);
        work.values[at] = inside && lane < count ? static_cast<T>(value(c, lane)) : T(0);
      });
      block.each_warp([&](int warp) {
        for (int i = warp; i < kSlices * kSlices; i += kThreads / kWarp) {
          const int row = i / kSlices * kTile, column = i % kSlices * kTile;
          if (first + row >= sizes.channels || column >= count) continue;
          TileProduct<Block>::template add<false, true>(
              work.weight + row, kSidePitch, work.values + column, kSidePitch, depth,
              work.sums + row * kSumPitch + column, kSumPitch);
        }
      });
    }
    emit(first, [&](int t, int, int i) {
      return work.sums[(t / kLanes * kTile + i) * kSumPitch + t % kLanes];
    });
  }
}

}  // namespace fastinterp
