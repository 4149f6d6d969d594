// Class activation maps, eq. (1), as block programs.
#pragma once

#include "store_tile.cuh"

namespace fastinterp {

// Grid [N, tiles, groups]: maps[n, c, p] = (1/u) sum_k weight[c, k] features[n, k, p].
template <typename T>
struct CamForward {
  Sizes sizes;
  Maps<T> features, maps;
  const T* weight;

  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    const int64_t n = block.x, tile = block.y, first_class = block.z * kGroup;
    Local<Block, Acc<T>, kGroup> sums(block);
    class_product<1, T>(block, static_cast<Acc<T>*>(memory), sums, weight, sizes, first_class, tile,
                        [&](int64_t k, int64_t p, Acc<T>* values) {
                          values[0] = static_cast<Acc<T>>(features.at(n, k, p));
                        });
    block.each_thread([&](int t) {
      const int64_t p = tile * kLanes + t;
      if (t >= kLanes || p >= sizes.positions) return;
      FI_UNROLL
      for (int c = 0; c < kGroup; ++c) {
        if (first_class + c >= sizes.classes) continue;
        maps.at(n, first_class + c, p) =
            static_cast<T>(sums.at(t, c) / static_cast<Acc<T>>(sizes.positions));
      }
    });
  }
};

// Grid [N, tiles]: the gradient by the features from the gradient by the maps.
template <typename T>
struct CamBackwardFeatures {
  Sizes sizes;
  Maps<T> grad_maps, grad_features;
  const T* weight;

  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    const int64_t n = block.x, tile = block.y;
    Acc<T>* shared = static_cast<Acc<T>*>(memory);
    channel_product<1, T>(
        block, shared, weight, sizes, tile, all_channels(sizes),
        [&](int64_t c, int64_t p, Acc<T>* values) {
          values[0] = static_cast<Acc<T>>(grad_maps.at(n, c, p));
        },
        [&](int64_t first, const auto& sum) {
          store_tile(
              block, room_of<T>(shared), grad_features, sizes, n, tile, first,
              [&](int t, int i) { return sum(t, 0, i) / static_cast<Acc<T>>(sizes.positions); });
        });
  }
};

// Grid [K, groups, parts]: the gradient by the weight, in one part for each run of images.
template <typename T>
struct CamBackwardWeight {
  Sizes sizes;
  Maps<T> grad_maps, features;
  Acc<T>* partial;  // [parts, C, K]
  int64_t parts;

  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    const int64_t k = block.x, part = block.z;
    const Acc<T> inverse = Acc<T>(1) / static_cast<Acc<T>>(sizes.positions);
    weight_product<T>(
        block, static_cast<Acc<T>*>(memory), sizes, block.y * kGroup, sizes.images * part / parts,
        sizes.images * (part + 1) / parts,
        [&](int64_t n, int64_t p) { return inverse * static_cast<Acc<T>>(features.at(n, k, p)); },
        [&](int64_t n, int64_t c, int64_t p, Acc<T> value) {
          return static_cast<Acc<T>>(grad_maps.at(n, c, p)) * value;
        },
        partial + part * sizes.classes * sizes.channels + k, sizes.channels);
  }
};

}  // namespace fastinterp
