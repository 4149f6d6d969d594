// The discrepancy of eq. (8) in one launch, with one thread block cluster for each image. The
// blocks divide the tiles of positions among themselves. If the image is a single tile, they divide
// the classes in the forward pass and the channels in the backward pass.
//
// A block stores the signs of its own tiles in shared memory, and the blocks read each other's sums
// through distributed shared memory. Only q and r go to global memory.
#pragma once

#include "discrepancy.cuh"
#include "tensor_products.cuh"

namespace fastinterp {

// How a cluster divides an image, and the layout of a block's shared memory: offsets in bytes.
struct ClusterPlan {
  int64_t ranks;         // blocks of a cluster; 0 if an image does not fit
  bool by_classes;       // every block has all tiles, but a part of the classes and channels
  int64_t tiles;         // the most that a block has
  int64_t sums;          // [2, C], double: sums over the block's own tiles
  int64_t totals;        // [2, C], double: sums over the image
  int64_t coefficients;  // [2, C]: q, r
  int64_t signs;         // [class tiles, tiles * kTilePositions]
  int64_t features, features_adv;  // a tile of A and of A'; 0 if not staged
  int64_t storage;  // for tensor cores; 0 if they are not used. The backward pass no longer needs A
                    // and A', and its storage overlaps them.
  int64_t bytes;
};

// The cluster launcher calls forward, softmax and backward, with cluster.sync() between them.
// peer(rank) is the shared memory of another block of the cluster; only `softmax` may read it.
// Clusters [N]; block.x is the image, block.y the rank of the block in its cluster.
template <typename T>
struct DiscrepancyClusterKernel : DiscrepancyParams<T> {
  ClusterPlan plan;

  template <typename Block>
  FI_HD void forward(Block& block, char* memory) const {
    const auto& s = this->sizes;
    const int64_t n = block.x, begin = first_tile(block.y), end = last_tile(block.y);
    double* sums = sums_in(memory);
    block.each(2 * s.classes, [&](int64_t i) { sums[i] = 0; });
    for (int64_t tile = begin; tile < end; ++tile) {
      if (plan.features_adv == 0) {
        forward_class_tiles(
            block, memory, begin, tile, [&](int64_t k, int64_t p, AccType<T>* values) {
              values[1] = static_cast<AccType<T>>(this->features_adv.at(n, k, p));
              values[0] = values[1] - static_cast<AccType<T>>(this->features.at(n, k, p));
            });
        continue;
      }
      const auto features = stage(block, this->features, s, n, tile, at<T>(memory, plan.features));
      const auto features_adv =
          stage(block, this->features_adv, s, n, tile, at<T>(memory, plan.features_adv));
      if constexpr (sizeof(T) == 2) {
        if (plan.storage != 0) {
          forward_tensor_cores(block, memory, begin, tile, features, features_adv);
          continue;
        }
      }
      forward_class_tiles(
          block, memory, begin, tile, [&](int64_t k, int64_t p, AccType<T>* values) {
            values[1] = static_cast<AccType<T>>(features_adv.at(k, p - tile * kTilePositions));
            values[0] =
                values[1] - static_cast<AccType<T>>(features.at(k, p - tile * kTilePositions));
          });
    }
  }

  template <typename Block, typename Load>
  FI_HD void forward_class_tiles(Block& block, char* memory, int64_t begin, int64_t tile,
                                 const Load& load) const {
    double* sums = sums_in(memory);
    const Signs signs = signs_in(memory);
    const int64_t last = last_class_tile(block.y);
    for (int64_t class_tile = first_class_tile(block.y); class_tile < last; ++class_tile) {
      this->forward_tile(
          block, at<AccType<T>>(memory, 0), tile, class_tile, load,
          [&](int64_t p, uint32_t word) {
            signs.word(class_tile, p - begin * kTilePositions) = word;
          },
          [&](int64_t field, int64_t c, double sum) {
            sums[field * this->sizes.classes + c] += sum;
          });
    }
  }

  template <typename Block>
  FI_HD void forward_tensor_cores(Block& block, char* memory, int64_t begin, int64_t tile,
                                  const StagedTile<T>& features,
                                  const StagedTile<T>& features_adv) const {
    auto& storage = *at<ClassStorage<T>>(memory, plan.storage);
    double* sums = sums_in(memory);
    const Signs signs = signs_in(memory);
    const int64_t last = last_class_tile(block.y);
    for (int64_t class_tile = first_class_tile(block.y); class_tile < last; ++class_tile) {
      tensor_class_product(block, storage, this->weight, this->sizes, class_tile * kClassTile,
                           features, features_adv);
      this->reduce_maps(
          block, at<AccType<T>>(memory, 0), tile, class_tile,
          [&](int tile_position, int field, int c) { return storage.map(tile_position, field, c); },
          [&](int64_t p, uint32_t word) {
            signs.word(class_tile, p - begin * kTilePositions) = word;
          },
          [&](int64_t field, int64_t c, double sum) {
            sums[field * this->sizes.classes + c] += sum;
          },
          false);
    }
  }

  template <typename Block, typename Peer>
  FI_HD void softmax(Block& block, char* memory, const Peer& peer) const {
    const int64_t n = block.x, classes = this->sizes.classes;
    double* totals = at<double>(memory, plan.totals);
    AccType<T>* q = coefficients_in(memory);
    if (plan.by_classes && this->grad_features_adv.data) gather_signs(block, memory, peer);
    block.each(2 * classes, [&](int64_t i) {
      double sum = 0;
      for (int64_t rank = 0; rank < plan.ranks; ++rank) sum += sums_in(peer(rank))[i];
      totals[i] = sum;
    });
    const bool first = block.y == 0;  // every block computes the same q and r
    this->softmax_of_sums(block, at<double>(memory, 0), n, totals, q, first);
    if (!first) return;
    block.each(2 * classes, [&](int64_t i) { this->coefficient[2 * n * classes + i] = q[i]; });
  }

  // Copies the signs of the other blocks' classes: the gradient of a channel needs all classes.
  template <typename Block, typename Peer>
  FI_HD void gather_signs(Block& block, char* memory, const Peer& peer) const {
    const Signs signs = signs_in(memory);
    const int positions = static_cast<int>(this->sizes.positions);  // few: they fit shared memory
    for (int64_t rank = 0; rank < plan.ranks; ++rank) {
      if (rank == block.y) continue;
      const Signs from = signs_in(peer(rank));
      const int64_t first = first_class_tile(rank), count = last_class_tile(rank) - first;
      block.each(count * positions, [&](int64_t i) {
        const int at = static_cast<int>(i), p = at % positions;
        const int64_t class_tile = first + at / positions;
        signs.word(class_tile, p) = from.word(class_tile, p);
      });
    }
  }

  template <typename Block>
  FI_HD void backward(Block& block, char* memory) const {
    if (!this->grad_features_adv.data) return;
    const int64_t begin = first_tile(block.y), end = last_tile(block.y);
    const Channels part = channels_of(block.y);
    const Signs signs = signs_in(memory);
    const AccType<T>* q = coefficients_in(memory);
    const auto sign = [&](int64_t c, int64_t p) { return signs.at(c, p - begin * kTilePositions); };
    for (int64_t tile = begin; tile < end; ++tile) {
      if constexpr (sizeof(T) == 2) {
        if (plan.storage != 0) {
          auto& storage = *at<ChannelStorage<T>>(memory, plan.storage);
          tensor_channel_product(
              block, storage, this->weight, this->sizes, tile, part,
              [&](int64_t c, int64_t tile_position) {
                return q[c] * static_cast<float>(sign(c, tile * kTilePositions + tile_position)) +
                       q[this->sizes.classes + c];
              },
              this->grad_features_adv_writer(block, storage.buffer(), block.x, tile));
          continue;
        }
      }
      this->backward_features_adv(block, at<AccType<T>>(memory, 0), block.x, tile, part, q, sign);
    }
  }

  // The tiles, class tiles and channels of a block.
  FI_HD int64_t first_tile(int64_t rank) const {
    return plan.by_classes ? 0 : tiles_of(this->sizes) * rank / plan.ranks;
  }
  FI_HD int64_t last_tile(int64_t rank) const {
    return plan.by_classes ? tiles_of(this->sizes) : first_tile(rank + 1);
  }
  FI_HD int64_t first_class_tile(int64_t rank) const {
    return plan.by_classes ? class_tiles_of(this->sizes) * rank / plan.ranks : 0;
  }
  FI_HD int64_t last_class_tile(int64_t rank) const {
    return plan.by_classes ? first_class_tile(rank + 1) : class_tiles_of(this->sizes);
  }
  FI_HD Channels channels_of(int64_t rank) const {
    const int64_t channels = this->sizes.channels,
                  steps = (channels + kChannelTile - 1) / kChannelTile;
    if (!plan.by_classes) return all_channels(this->sizes);
    const int64_t end = steps * (rank + 1) / plan.ranks * kChannelTile;
    return {steps * rank / plan.ranks * kChannelTile, end < channels ? end : channels};
  }
  FI_HD double* sums_in(char* memory) const { return at<double>(memory, plan.sums); }
  FI_HD AccType<T>* coefficients_in(char* memory) const {
    return at<AccType<T>>(memory, plan.coefficients);
  }
  FI_HD Signs signs_in(char* memory) const {
    return {at<uint32_t>(memory, plan.signs), plan.tiles * kTilePositions};
  }
  template <typename Element>
  FI_HD static Element* at(char* memory, int64_t offset) {
    return reinterpret_cast<Element*>(memory + offset);
  }
};

}  // namespace fastinterp
