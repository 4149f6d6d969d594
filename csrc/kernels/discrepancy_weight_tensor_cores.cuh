// The gradient of the discrepancy by the weight for tensor cores, but for what comes by r:
//   (1/u) sum_p q sign (A' - A)
// Either factor is rounded to the half type once.
#pragma once

#include "discrepancy.cuh"
#include "tensor_products.cuh"

namespace fastinterp {

template <typename T>
struct WeightWork {
  alignas(32) T before[kSide * kSidePitch];
  alignas(32) T after[kSide * kSidePitch];   // later the difference
  alignas(32) T values[kSide * kSidePitch];  // [classes, positions]
  alignas(32) float sums[kSide * kSumPitch];
};

// Grid [K / kSide, C / kSide, parts].
template <typename T>
struct DiscrepancyWeightTiles : Discrepancy<T> {
  float* weight_partial;  // [parts, C, K]
  int64_t parts;

  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    const auto& s = this->sizes;
    auto& work = *static_cast<WeightWork<T>*>(memory);
    const int64_t first_class = block.y * kSide, first_channel = block.x * kSide, part = block.z;
    block.each(kSide * kSumPitch, [&](int64_t i) { work.sums[i] = 0; });
    const int64_t last = s.images * (part + 1) / parts;
    for (int64_t n = s.images * part / parts; n < last; ++n) {
      for (int64_t tile = 0; tile < tiles_of(s); ++tile) {
        add_tile(block, work, n, tile, first_class, first_channel);
      }
    }
    block.each(kSide * kSide, [&](int64_t i) {
      const int64_t row = i / kSide, c = first_class + row, k = first_channel + i % kSide;
      if (c >= s.classes || k >= s.channels) return;
      weight_partial[(part * s.classes + c) * s.channels + k] =
          work.sums[row * kSumPitch + i % kSide];
    });
  }

 private:
  template <typename Block>
  FI_HD void add_tile(Block& block, WeightWork<T>& work, int64_t n, int64_t tile,
                      int64_t first_class, int64_t first_channel) const {
    const auto& s = this->sizes;
    const int64_t left = s.positions - tile * kLanes;
    const int count = static_cast<int>(left < kLanes ? left : kLanes), depth = whole_tiles(count);
    Sizes part = s;
    part.channels = s.channels - first_channel < kSide ? s.channels - first_channel : kSide;
    const auto before =
        stage(block, from_channel(this->before, first_channel), part, n, tile, work.before);
    const auto after =
        stage(block, from_channel(this->after, first_channel), part, n, tile, work.after);
    // Sums run over positions: there what is not read must be zero on both sides.
    block.each(part.channels * depth, [&](int64_t i) {
      const int64_t k = i / depth, lane = i % depth;
      T& to = after.at(k, lane);
      to = lane < count
               ? static_cast<T>(static_cast<float>(to) - static_cast<float>(before.at(k, lane)))
               : T(0);
    });
    const Acc<T>* q = this->coefficient + 2 * n * s.classes;
    const Signs kept = this->signs_of(n);
    const float scale = this->scale_of(n);
    block.each(kSide * depth, [&](int64_t i) {
      const int64_t c = first_class + i / depth, lane = i % depth;
      const bool inside = c < s.classes && lane < count;
      work.values[i / depth * kSidePitch + lane] =
          inside
              ? static_cast<T>(scale * q[c] * static_cast<float>(kept.at(c, tile * kLanes + lane)))
              : T(0);
    });
    multiply(block, work, after, static_cast<int>(s.classes - first_class),
             static_cast<int>(part.channels), depth);
  }

  // work.sums [classes, channels] += work.values [classes, depth] difference^T
  template <typename Block>
  FI_HD void multiply(Block& block, WeightWork<T>& work, const StagedTile<T>& difference,
                      int classes, int channels, int depth) const {
    block.each_warp([&](int warp) {
      for (int i = warp; i < kSlices * kSlices; i += kThreads / kWarp) {
        const int row = i / kSlices * kTile, column = i % kSlices * kTile;
        if (row >= classes || column >= channels) continue;
        const T* values = work.values + row * kSidePitch;
        float* sums = work.sums + row * kSumPitch + column;
        if (difference.position_stride == 1) {
          TileProduct<Block>::template add<true, false>(
              values, kSidePitch, &difference.at(column, 0), difference.channel_stride, depth, sums,
              kSumPitch);
        } else {
          TileProduct<Block>::template add<true, true>(
              values, kSidePitch, &difference.at(column, 0), difference.position_stride, depth,
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
