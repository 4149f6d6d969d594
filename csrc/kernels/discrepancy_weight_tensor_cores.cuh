// The first term of dD/dW on tensor cores: (1/u) sum_p q sign(M) (A' - A). Each factor is rounded
// to the half type once. launch/discrepancy.h adds the second term, (1/u) sum_p r A'.
#pragma once

#include "discrepancy.cuh"
#include "tensor_products.cuh"

namespace fastinterp {

template <typename T>
struct WeightStorage {
  alignas(32) T features[kGradientTile * kGradientPitch];
  alignas(32) T features_adv[kGradientTile * kGradientPitch];  // then the difference
  alignas(32) T values[kGradientTile * kGradientPitch];        // [classes, positions]
  alignas(32) float sums[kGradientTile * kSumPitch];
};

// Grid [K / kGradientTile, C / kGradientTile, parts].
template <typename T>
struct DiscrepancyWeightTensorCoreKernel : DiscrepancyParams<T> {
  float* weight_partial;  // [parts, C, K]
  int64_t parts;

  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    const auto& s = this->sizes;
    auto& storage = *static_cast<WeightStorage<T>*>(memory);
    const int64_t first_class = block.y * kGradientTile, first_channel = block.x * kGradientTile,
                  part = block.z;
    block.each(kGradientTile * kSumPitch, [&](int64_t i) { storage.sums[i] = 0; });
    const int64_t last = s.images * (part + 1) / parts;
    for (int64_t n = s.images * part / parts; n < last; ++n) {
      for (int64_t tile = 0; tile < tiles_of(s); ++tile) {
        add_tile(block, storage, n, tile, first_class, first_channel);
      }
    }
    block.each(kGradientTile * kGradientTile, [&](int64_t i) {
      const int64_t row = i / kGradientTile, c = first_class + row,
                    k = first_channel + i % kGradientTile;
      if (c >= s.classes || k >= s.channels) return;
      weight_partial[(part * s.classes + c) * s.channels + k] =
          storage.sums[row * kSumPitch + i % kGradientTile];
    });
  }

 private:
  template <typename Block>
  FI_HD void add_tile(Block& block, WeightStorage<T>& storage, int64_t n, int64_t tile,
                      int64_t first_class, int64_t first_channel) const {
    const auto& s = this->sizes;
    const int64_t left = s.positions - tile * kTilePositions;
    const int count = static_cast<int>(left < kTilePositions ? left : kTilePositions),
              depth = round_to_mma_tile(count);
    Sizes part = s;
    part.channels =
        s.channels - first_channel < kGradientTile ? s.channels - first_channel : kGradientTile;
    const auto features =
        stage(block, from_channel(this->features, first_channel), part, n, tile, storage.features);
    const auto features_adv = stage(block, from_channel(this->features_adv, first_channel), part, n,
                                    tile, storage.features_adv);
    // The product sums over positions: the padding must be zero in both factors.
    block.each(part.channels * depth, [&](int64_t i) {
      const int64_t k = i / depth, tile_position = i % depth;
      T& to = features_adv.at(k, tile_position);
      to = tile_position < count ? static_cast<T>(static_cast<float>(to) -
                                                  static_cast<float>(features.at(k, tile_position)))
                                 : T(0);
    });
    const AccType<T>* q = this->coefficient + 2 * n * s.classes;
    const Signs signs = this->signs_of(n);
    const float scale = this->scale_of(n);
    block.each(kGradientTile * depth, [&](int64_t i) {
      const int64_t c = first_class + i / depth, tile_position = i % depth;
      const bool inside = c < s.classes && tile_position < count;
      storage.values[i / depth * kGradientPitch + tile_position] =
          inside ? static_cast<T>(
                       scale * q[c] *
                       static_cast<float>(signs.at(c, tile * kTilePositions + tile_position)))
                 : T(0);
    });
    multiply(block, storage, features_adv, static_cast<int>(s.classes - first_class),
             static_cast<int>(part.channels), depth);
  }

  // storage.sums [classes, channels] += storage.values [classes, depth] difference^T
  template <typename Block>
  FI_HD void multiply(Block& block, WeightStorage<T>& storage, const StagedTile<T>& difference,
                      int classes, int channels, int depth) const {
    block.each_warp([&](int warp) {
      for (int i = warp; i < kChannelSlices * kChannelSlices; i += kThreads / kWarp) {
        const int row = i / kChannelSlices * kMmaTile, column = i % kChannelSlices * kMmaTile;
        if (row >= classes || column >= channels) continue;
        const T* values = storage.values + row * kGradientPitch;
        float* sums = storage.sums + row * kSumPitch + column;
        if (difference.position_stride == 1) {
          TileProduct<Block>::template add<true, false>(
              values, kGradientPitch, &difference.at(column, 0), difference.channel_stride, depth,
              sums, kSumPitch);
        } else {
          TileProduct<Block>::template add<true, true>(
              values, kGradientPitch, &difference.at(column, 0), difference.position_stride, depth,
              sums, kSumPitch);
        }
      }
    });
  }

  FI_HD static Maps<T> from_channel(Maps<T> maps, int64_t first) {
    maps.data += first * maps.channel_stride;
    return maps;
  }
};

}  // namespace fastinterp
