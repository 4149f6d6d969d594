// The products of products.cuh on tensor cores: half types, many channels and classes, features in
// shared memory.
#pragma once

#include "staging.cuh"
#include "store_tile.cuh"
#include "tile_product.cuh"

namespace fastinterp {

constexpr int kDepthTile = 256;  // channels whose weights are staged at a time
constexpr int kDepthPitch = kDepthTile + 8;
constexpr int kGradientTile =
    64;  // channels and classes of a gradient that a block computes at a time
constexpr int kGradientPitch = kGradientTile + 8;
constexpr int kSumPitch = kTilePositions + 4;
static_assert(kGradientTile == kChannelSlices * kMmaTile &&
              kTilePositions == kChannelSlices * kMmaTile && kClassTile == kMmaTile);
static_assert(kThreadChannels == kMmaTile);
static_assert(kThreads / kWarp == 2 * kChannelSlices, "a warp for each of two fields' four tiles");

FI_HD int round_to_mma_tile(int64_t count) {
  return static_cast<int>((count + kMmaTile - 1) / kMmaTile * kMmaTile);
}

// Shared memory of tensor_class_product and of tensor_channel_product.
template <typename T>
struct ClassStorage {
  alignas(32) T weight[kMmaTile * kDepthPitch];
  alignas(32) float sums[2 * kMmaTile * kSumPitch];  // W A and W A'

  // W (A' - A) (field 0) or W A' (field 1) of class c of the tile.
  FI_HD float map(int tile_position, int field, int c) const {
    const float with = sums[(kMmaTile + c) * kSumPitch + tile_position];
    return field ? with : with - sums[c * kSumPitch + tile_position];
  }
};
template <typename T>
struct ChannelStorage {
  alignas(32) T weight[kGradientTile * kGradientPitch];  // [classes, channels]
  alignas(32) T values[kGradientTile * kGradientPitch];  // [classes, positions]
  alignas(32) float sums[kGradientTile * kSumPitch];

  FI_HD SharedBuffer<T> buffer() { return {values, kGradientTile * kGradientPitch}; }
};

// Computes storage.sums for one tile of classes on one tile of positions. A and A' are multiplied
// separately, so that A' - A need not be rounded to the half type; the float32 difference of the
// products loses far less.
template <typename T, typename Block>
FI_HD void tensor_class_product(Block& block, ClassStorage<T>& storage, const T* weight,
                                const Sizes& sizes, int64_t first_class,
                                const StagedTile<T>& features, const StagedTile<T>& features_adv) {
  const int width =
      round_to_mma_tile(sizes.positions < kTilePositions ? sizes.positions : kTilePositions);
  block.each(2 * kMmaTile * kSumPitch, [&](int64_t i) { storage.sums[i] = 0; });
  for (int64_t begin = 0; begin < sizes.channels; begin += kDepthTile) {
    const int64_t left = sizes.channels - begin;
    const int depth = round_to_mma_tile(left < kDepthTile ? left : kDepthTile);
    block.each(kMmaTile * depth, [&](int64_t i) {
      const int64_t c = first_class + i / depth, k = begin + i % depth;
      const bool inside = c < sizes.classes && k < sizes.channels;
      storage.weight[i / depth * kDepthPitch + i % depth] =
          inside ? weight[c * sizes.channels + k] : T(0);
    });
    block.each_warp([&](int warp) {
      const int field = warp / kChannelSlices, column = warp % kChannelSlices * kMmaTile;
      if (column >= width) return;
      const StagedTile<T> maps = field ? features_adv : features;
      float* sums = storage.sums + field * kMmaTile * kSumPitch + column;
      if (maps.position_stride == 1) {
        TileProduct<Block>::template add<true, true>(storage.weight, kDepthPitch,
                                                     &maps.at(begin, column), maps.channel_stride,
                                                     depth, sums, kSumPitch);
      } else {
        TileProduct<Block>::template add<true, false>(storage.weight, kDepthPitch,
                                                      &maps.at(begin, column), maps.position_stride,
                                                      depth, sums, kSumPitch);
      }
    });
  }
}

// channel_product with one field. value(c, tile_position) is rounded to T once. emit may overwrite
// storage.values.
template <typename T, typename Block, typename Value, typename Emit>
FI_HD void tensor_channel_product(Block& block, ChannelStorage<T>& storage, const T* weight,
                                  const Sizes& sizes, int64_t tile, const Channels& part,
                                  const Value& value, const Emit& emit) {
  static_assert(kGradientTile == kChannelTile);
  const int64_t left = sizes.positions - tile * kTilePositions,
                count = left < kTilePositions ? left : kTilePositions;
  for (int64_t first = part.begin; first < part.end; first += kGradientTile) {
    block.each(kGradientTile * kSumPitch, [&](int64_t i) { storage.sums[i] = 0; });
    for (int64_t begin = 0; begin < sizes.classes; begin += kGradientTile) {
      const int64_t classes = sizes.classes - begin;
      const int depth = round_to_mma_tile(classes < kGradientTile ? classes : kGradientTile);
      block.each(depth * kGradientTile, [&](int64_t i) {
        const int64_t c = begin + i / kGradientTile, k = first + i % kGradientTile,
                      tile_position = i % kGradientTile;
        const int64_t at = i / kGradientTile * kGradientPitch + i % kGradientTile;
        const bool inside = c < sizes.classes;
        storage.weight[at] = inside && k < sizes.channels ? weight[c * sizes.channels + k] : T(0);
        storage.values[at] =
            inside && tile_position < count ? static_cast<T>(value(c, tile_position)) : T(0);
      });
      block.each_warp([&](int warp) {
        for (int i = warp; i < kChannelSlices * kChannelSlices; i += kThreads / kWarp) {
          const int row = i / kChannelSlices * kMmaTile, column = i % kChannelSlices * kMmaTile;
          if (first + row >= sizes.channels || column >= count) continue;
          TileProduct<Block>::template add<false, true>(
              storage.weight + row, kGradientPitch, storage.values + column, kGradientPitch, depth,
              storage.sums + row * kSumPitch + column, kSumPitch);
        }
      });
    }
    emit(first, [&](int t, int, int i) {
      return storage.sums[(t / kTilePositions * kMmaTile + i) * kSumPitch + t % kTilePositions];
    });
  }
}

}  // namespace fastinterp
