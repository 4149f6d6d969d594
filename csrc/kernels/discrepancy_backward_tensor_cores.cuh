// The backward pass of the discrepancy for tensor cores: half types, many channels and classes.
#pragma once

#include "discrepancy.cuh"
#include "tensor_products.cuh"

namespace fastinterp {

// Where a block keeps what: offsets in bytes. Spreading, A and A' are no longer needed, and `work`
// may reach into them.
struct BackwardPlan {
  int64_t constants;  // [kThreads], see add_constants
  int64_t work, before, after;
  int64_t bytes;  // 0 where a tile does not fit
};

// Both gradients by the maps, from one product: dD/dA = -(1/u) W^T (q sign), and dD/dA' differs
// from its negative by (1/u) W^T r, a number of each channel. The signs are the forward pass's,
// made by the same products, and are left in global memory for the gradient by the weight. A
// program as DiscrepancyCluster's, for clusters of one block: [N * tiles].
template <typename T>
struct DiscrepancyBackwardTiles : Discrepancy<T> {
  BackwardPlan plan;

  template <typename Block>
  FI_HD void measure_tiles(Block& block, char* memory) const {
    const auto& s = this->sizes;
    const int64_t n = image_of(block), tile = tile_of(block);
    const auto before = stage(block, this->before, s, n, tile, at<T>(memory, plan.before));
    const auto after = stage(block, this->after, s, n, tile, at<T>(memory, plan.after));
    auto& work = *at<ClassWork<T>>(memory, plan.work);
    const Signs kept = this->signs_of(n);
    for (int64_t group = 0; group < groups_of(s); ++group) {
      class_tiles(block, work, this->weight, s, group * kGroup, before, after);
      this->summarise(
          block, static_cast<Acc<T>*>(nullptr), tile, group,
          [&](int lane, int field, int c) { return work.map(lane, field, c); },
          [&](int64_t p, uint32_t word) { kept.word(group, p) = word; },
          [](int64_t, int64_t, double) {}, true);
    }
  }

  template <typename Block, typename Peer>
  FI_HD void settle(Block&, char*, const Peer&) const {}  // the coefficients are known

  template <typename Block>
  FI_HD void spread(Block& block, char* memory) const {
    if (!this->by_before.data && !this->by_after.data) return;
    const int64_t n = image_of(block), tile = tile_of(block);
    auto& work = *at<ChannelWork<T>>(memory, plan.work);
    float* constants = at<float>(memory, plan.constants);
    const Acc<T>* q = this->coefficient + 2 * n * this->sizes.classes;
    const Signs kept = this->signs_of(n);
    const float scale = this->scale_of(n);
    channel_tiles(
        block, work, this->weight, this->sizes, tile, all_channels(this->sizes),
        [&](int64_t c, int64_t lane) {
          return q[c] * static_cast<float>(kept.at(c, tile * kLanes + lane));
        },
        [&](int64_t first, const auto& sum) {
          store_tile(block, work.room(), this->by_before, this->sizes, n, tile, first,
                     [&](int t, int i) { return -scale * sum(t, 0, i); });
          if (!this->by_after.data) return;
          add_constants(block, constants, q + this->sizes.classes, first);
          store_tile(block, work.room(), this->by_after, this->sizes, n, tile, first,
                     [&](int t, int i) {
                       const float* parts = constants + t / kLanes * kChannelsAtOnce + i;
                       float constant = 0;
                       FI_UNROLL
                       for (int part = 0; part < kSlices; ++part) constant += parts[part * kWide];
                       return scale * (sum(t, 0, i) + constant);
                     });
        });
  }

 private:
  // Of W^T r for kWide channels from `first` on: constants [kSlices, kWide], what every kSlices-th
  // class adds.
  template <typename Block>
  FI_HD void add_constants(Block& block, float* constants, const float* r, int64_t first) const {
    const auto& s = this->sizes;
    block.each_thread([&](int t) {
      const int64_t k = first + t % kWide;
      float sum = 0;
      for (int64_t c = t / kWide; c < s.classes && k < s.channels; c += kSlices) {
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
