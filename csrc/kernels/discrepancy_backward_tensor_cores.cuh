// dD/dA and dD/dA' on tensor cores: half types, many channels and classes.
#pragma once

#include "discrepancy.cuh"
#include "tensor_products.cuh"

namespace fastinterp {

// The layout of a block's shared memory: offsets in bytes. `backward` no longer needs A and A', and
// its storage overlaps them.
struct BackwardPlan {
  int64_t constants;  // [kThreads], see add_constants
  int64_t storage, features, features_adv;
  int64_t bytes;  // 0 if a tile does not fit
};

// Both gradients from one product: dD/dA = -(1/u) W^T (q sign(M)), and dD/dA' = -dD/dA +
// (1/u) W^T r, where the last term is one number per channel. `forward` computes the signs as the
// forward pass did and stores them in global memory for dD/dW. Launched as DiscrepancyClusterKernel
// is, with clusters of one block: [N * tiles].
template <typename T>
struct DiscrepancyBackwardTensorCoreKernel : DiscrepancyParams<T> {
  BackwardPlan plan;

  template <typename Block>
  FI_HD void forward(Block& block, char* memory) const {
    const auto& s = this->sizes;
    const int64_t n = image_of(block), tile = tile_of(block);
    const auto features = stage(block, this->features, s, n, tile, at<T>(memory, plan.features));
    const auto features_adv =
        stage(block, this->features_adv, s, n, tile, at<T>(memory, plan.features_adv));
    auto& storage = *at<ClassStorage<T>>(memory, plan.storage);
    const Signs signs = this->signs_of(n);
    for (int64_t class_tile = 0; class_tile < class_tiles_of(s); ++class_tile) {
      tensor_class_product(block, storage, this->weight, s, class_tile * kClassTile, features,
                           features_adv);
      this->reduce_maps(
          block, static_cast<AccType<T>*>(nullptr), tile, class_tile,
          [&](int tile_position, int field, int c) { return storage.map(tile_position, field, c); },
          [&](int64_t p, uint32_t word) { signs.word(class_tile, p) = word; },
          [](int64_t, int64_t, double) {}, true);
    }
  }

  template <typename Block, typename Peer>
  FI_HD void softmax(Block&, char*, const Peer&) const {}  // q and r are arguments

  template <typename Block>
  FI_HD void backward(Block& block, char* memory) const {
    if (!this->grad_features.data && !this->grad_features_adv.data) return;
    const int64_t n = image_of(block), tile = tile_of(block);
    auto& storage = *at<ChannelStorage<T>>(memory, plan.storage);
    float* constants = at<float>(memory, plan.constants);
    const AccType<T>* q = this->coefficient + 2 * n * this->sizes.classes;
    const Signs signs = this->signs_of(n);
    const float scale = this->scale_of(n);
    tensor_channel_product(
        block, storage, this->weight, this->sizes, tile, all_channels(this->sizes),
        [&](int64_t c, int64_t tile_position) {
          return q[c] * static_cast<float>(signs.at(c, tile * kTilePositions + tile_position));
        },
        [&](int64_t first, const auto& sum) {
          store_tile(block, storage.buffer(), this->grad_features, this->sizes, n, tile, first,
                     [&](int t, int i) { return -scale * sum(t, 0, i); });
          if (!this->grad_features_adv.data) return;
          add_constants(block, constants, q + this->sizes.classes, first);
          store_tile(block, storage.buffer(), this->grad_features_adv, this->sizes, n, tile, first,
                     [&](int t, int i) {
                       const float* parts = constants + t / kTilePositions * kThreadChannels + i;
                       float constant = 0;
                       FI_UNROLL
                       for (int part = 0; part < kChannelSlices; ++part)
                         constant += parts[part * kChannelTile];
                       return scale * (sum(t, 0, i) + constant);
                     });
        });
  }

 private:
  // constants [kChannelSlices, kChannelTile]: partial sums of W^T r for the kChannelTile channels
  // from `first` on; row i sums the classes i, i + kChannelSlices, ...
  template <typename Block>
  FI_HD void add_constants(Block& block, float* constants, const float* r, int64_t first) const {
    const auto& s = this->sizes;
    block.each_thread([&](int t) {
      const int64_t k = first + t % kChannelTile;
      float sum = 0;
      for (int64_t c = t / kChannelTile; c < s.classes && k < s.channels; c += kChannelSlices) {
        sum += r[c] * static_cast<float>(this->weight[c * s.channels + k]);
      }
      constants[t] = sum;
    });
  }

  template <typename Block>
  FI_HD int64_t image_of(const Block& block) const {
    return block.x / tiles_of(this->sizes);
  }
  template <typename Block>
  FI_HD int64_t tile_of(const Block& block) const {
    return block.x % tiles_of(this->sizes);
  }
  template <typename Element>
  FI_HD static Element* at(char* memory, int64_t offset) {
    return reinterpret_cast<Element*>(memory + offset);
  }
};

}  // namespace fastinterp
