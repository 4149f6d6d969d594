// Class activation maps, eq. (1), and their gradients.
#pragma once

#include "store_tile.cuh"

namespace fastinterp {

// Grid [N, tiles, class tiles]: maps[n, c, p] = (1/u) sum_k weight[c, k] features[n, k, p].
template <typename T>
struct CamForwardKernel {
  Sizes sizes;
  Maps<T> features, maps;
  const T* weight;

  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    const int64_t n = block.x, tile = block.y, first_class = block.z * kClassTile;
    Local<Block, AccType<T>, kClassTile> sums(block);
    class_product<1, T>(block, static_cast<AccType<T>*>(memory), sums, weight, sizes, first_class,
                        tile, [&](int64_t k, int64_t p, AccType<T>* values) {
                          values[0] = static_cast<AccType<T>>(features.at(n, k, p));
                        });
    block.each_thread([&](int t) {
      const int64_t p = tile * kTilePositions + t;
      if (t >= kTilePositions || p >= sizes.positions) return;
      FI_UNROLL
      for (int c = 0; c < kClassTile; ++c) {
        if (first_class + c >= sizes.classes) continue;
        maps.at(n, first_class + c, p) =
            static_cast<T>(sums.at(t, c) / static_cast<AccType<T>>(sizes.positions));
      }
    });
  }
};

// Grid [N, tiles]: grad_features from grad_maps.
template <typename T>
struct CamBackwardFeaturesKernel {
  Sizes sizes;
  Maps<T> grad_maps, grad_features;
  const T* weight;

  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    const int64_t n = block.x, tile = block.y;
    AccType<T>* shared = static_cast<AccType<T>*>(memory);
    channel_product<1, T>(
        block, shared, weight, sizes, tile, all_channels(sizes),
        [&](int64_t c, int64_t p, AccType<T>* values) {
          values[0] = static_cast<AccType<T>>(grad_maps.at(n, c, p));
        },
        [&](int64_t first, const auto& sum) {
          store_tile(block, shared_buffer<T>(shared), grad_features, sizes, n, tile, first,
                     [&](int t, int i) {
                       return sum(t, 0, i) / static_cast<AccType<T>>(sizes.positions);
                     });
        });
  }
};

// Grid [K, class tiles, parts]: grad_weight, as one partial sum for each part of the batch.
template <typename T>
struct CamBackwardWeightKernel {
  Sizes sizes;
  Maps<T> grad_maps, features;
  AccType<T>* partial;  // [parts, C, K]
  int64_t parts;

  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    const int64_t k = block.x, part = block.z;
    const AccType<T> inverse = AccType<T>(1) / static_cast<AccType<T>>(sizes.positions);
    weight_product<T>(
        block, static_cast<AccType<T>*>(memory), sizes, block.y * kClassTile,
        sizes.images * part / parts, sizes.images * (part + 1) / parts,
        [&](int64_t n, int64_t p) {
          return inverse * static_cast<AccType<T>>(features.at(n, k, p));
        },
        [&](int64_t n, int64_t c, int64_t p, AccType<T> value) {
          return static_cast<AccType<T>>(grad_maps.at(n, c, p)) * value;
        },
        partial + part * sizes.classes * sizes.channels + k, sizes.channels);
  }
};

}  // namespace fastinterp
