// The discrepancy of eq. (8) in one launch: the blocks of a cluster share out the tiles of an
// image or, where it is a single tile, the classes and then the channels.
//
// A block keeps the signs of its own tiles in shared memory, and the cluster's blocks read each
// other's sums there. Of what belongs to a class, only the coefficients go to global memory.
#pragma once

#include "discrepancy.cuh"
#include "tensor_products.cuh"

namespace fastinterp {

// How a cluster shares out an image, and where a block of it keeps what: offsets in bytes.
struct ClusterPlan {
  int64_t ranks;          // blocks of a cluster; 0 where an image does not fit
  bool by_classes;        // every block has all tiles, and a part of the classes and channels
  int64_t tiles;          // of a block, at most
  int64_t sums;           // [2, C], double: of the maps over the block's own tiles
  int64_t totals;         // [2, C], double: over all of the image
  int64_t coefficients;   // [2, C]: q, r
  int64_t signs;          // [groups, tiles * kLanes]
  int64_t before, after;  // a tile of A and of A'; 0 where they are not staged
  int64_t work;           // of tensor cores; 0 where they are not used. Spreading, A and A' are
                          // no longer needed, and it may reach into them.
  int64_t bytes;
};

// A program for a cluster runs in three phases; between them, the whole cluster waits. peer(rank)
// is the shared memory of another block of the cluster, which `settle` alone may read.
// Clusters [N]; block.x is the image, block.y the rank.
template <typename T>
struct DiscrepancyCluster : Discrepancy<T> {
  ClusterPlan plan;

  template <typename Block>
  FI_HD void measure_tiles(Block& block, char* memory) const {
    const auto& s = this->sizes;
    const int64_t n = block.x, begin = first_tile(block.y), end = last_tile(block.y);
    double* sums = sums_in(memory);
    block.each(2 * s.classes, [&](int64_t i) { sums[i] = 0; });
    for (int64_t tile = begin; tile < end; ++tile) {
      if (plan.after == 0) {
        measure_groups(block, memory, begin, tile, [&](int64_t k, int64_t p, Acc<T>* values) {
          values[1] = static_cast<Acc<T>>(this->after.at(n, k, p));
          values[0] = values[1] - static_cast<Acc<T>>(this->before.at(n, k, p));
        });
        continue;
      }
      const auto before = stage(block, this->before, s, n, tile, at<T>(memory, plan.before));
      const auto after = stage(block, this->after, s, n, tile, at<T>(memory, plan.after));
      if constexpr (sizeof(T) == 2) {
        if (plan.work != 0) {
          measure_by_tiles(block, memory, begin, tile, before, after);
          continue;
        }
      }
      measure_groups(block, memory, begin, tile, [&](int64_t k, int64_t p, Acc<T>* values) {
        values[1] = static_cast<Acc<T>>(after.at(k, p - tile * kLanes));
        values[0] = values[1] - static_cast<Acc<T>>(before.at(k, p - tile * kLanes));
      });
    }
  }

  template <typename Block, typename Load>
  FI_HD void measure_groups(Block& block, char* memory, int64_t begin, int64_t tile,
                            const Load& load) const {
    double* sums = sums_in(memory);
    const Signs kept = signs_in(memory);
    const int64_t last = last_group(block.y);
    for (int64_t group = first_group(block.y); group < last; ++group) {
      this->measure(
          block, at<Acc<T>>(memory, 0), tile, group, load,
          [&](int64_t p, uint32_t word) { kept.word(group, p - begin * kLanes) = word; },
          [&](int64_t field, int64_t c, double sum) {
            sums[field * this->sizes.classes + c] += sum;
          });
    }
  }

  template <typename Block>
  FI_HD void measure_by_tiles(Block& block, char* memory, int64_t begin, int64_t tile,
                              const StagedTile<T>& before, const StagedTile<T>& after) const {
    auto& work = *at<ClassWork<T>>(memory, plan.work);
    double* sums = sums_in(memory);
    const Signs kept = signs_in(memory);
    const int64_t last = last_group(block.y);
    for (int64_t group = first_group(block.y); group < last; ++group) {
      class_tiles(block, work, this->weight, this->sizes, group * kGroup, before, after);
      this->summarise(
          block, at<Acc<T>>(memory, 0), tile, group,
          [&](int lane, int field, int c) { return work.map(lane, field, c); },
          [&](int64_t p, uint32_t word) { kept.word(group, p - begin * kLanes) = word; },
          [&](int64_t field, int64_t c, double sum) {
            sums[field * this->sizes.classes + c] += sum;
          },
          false);
    }
  }

  template <typename Block, typename Peer>
  FI_HD void settle(Block& block, char* memory, const Peer& peer) const {
    const int64_t n = block.x, classes = this->sizes.classes;
    double* totals = at<double>(memory, plan.totals);
    Acc<T>* q = coefficients_in(memory);
    if (plan.by_classes && this->by_after.data) gather_signs(block, memory, peer);
    block.each(2 * classes, [&](int64_t i) {
      double sum = 0;
      for (int64_t rank = 0; rank < plan.ranks; ++rank) sum += sums_in(peer(rank))[i];
      totals[i] = sum;
    });
    const bool first = block.y == 0;  // every block has the same
    this->conclude(block, at<double>(memory, 0), n, totals, q, first);
    if (!first) return;
    block.each(2 * classes, [&](int64_t i) { this->coefficient[2 * n * classes + i] = q[i]; });
  }

  // Those of the other blocks' classes: a block's own channels have to do with all classes.
  template <typename Block, typename Peer>
  FI_HD void gather_signs(Block& block, char* memory, const Peer& peer) const {
    const Signs kept = signs_in(memory);
    const int64_t positions = this->sizes.positions;
    for (int64_t rank = 0; rank < plan.ranks; ++rank) {
      if (rank == block.y) continue;
      const Signs from = signs_in(peer(rank));
      const int64_t first = first_group(rank), count = last_group(rank) - first;
      block.each(count * positions, [&](int64_t i) {
        const int64_t group = first + i / positions, p = i % positions;
        kept.word(group, p) = from.word(group, p);
      });
    }
  }

  template <typename Block>
  FI_HD void spread(Block& block, char* memory) const {
    if (!this->by_after.data) return;
    const int64_t begin = first_tile(block.y), end = last_tile(block.y);
    const Channels part = channels_of(block.y);
    const Signs kept = signs_in(memory);
    const Acc<T>* q = coefficients_in(memory);
    const auto sign = [&](int64_t c, int64_t p) { return kept.at(c, p - begin * kLanes); };
    for (int64_t tile = begin; tile < end; ++tile) {
      if constexpr (sizeof(T) == 2) {
        if (plan.work != 0) {
          auto& work = *at<ChannelWork<T>>(memory, plan.work);
          channel_tiles(
              block, work, this->weight, this->sizes, tile, part,
              [&](int64_t c, int64_t lane) {
                return q[c] * static_cast<float>(sign(c, tile * kLanes + lane)) +
                       q[this->sizes.classes + c];
              },
              this->emit_after(block, work.room(), block.x, tile));
          continue;
        }
      }
      this->spread_after(block, at<Acc<T>>(memory, 0), block.x, tile, part, q, sign);
    }
  }

  // What a block has of tiles, of groups of classes, and of channels.
  FI_HD int64_t first_tile(int64_t rank) const {
    return plan.by_classes ? 0 : tiles_of(this->sizes) * rank / plan.ranks;
  }
  FI_HD int64_t last_tile(int64_t rank) const {
    return plan.by_classes ? tiles_of(this->sizes) : first_tile(rank + 1);
  }
  FI_HD int64_t first_group(int64_t rank) const {
    return plan.by_classes ? groups_of(this->sizes) * rank / plan.ranks : 0;
  }
  FI_HD int64_t last_group(int64_t rank) const {
    return plan.by_classes ? first_group(rank + 1) : groups_of(this->sizes);
  }
  FI_HD Channels channels_of(int64_t rank) const {
    const int64_t channels = this->sizes.channels, steps = (channels + kWide - 1) / kWide;
    if (!plan.by_classes) return all_channels(this->sizes);
    const int64_t end = steps * (rank + 1) / plan.ranks * kWide;
    return {steps * rank / plan.ranks * kWide, end < channels ? end : channels};
  }
  FI_HD double* sums_in(char* memory) const { return at<double>(memory, plan.sums); }
  FI_HD Acc<T>* coefficients_in(char* memory) const {
    return at<Acc<T>>(memory, plan.coefficients);
  }
  FI_HD Signs signs_in(char* memory) const {
    return {at<uint32_t>(memory, plan.signs), plan.tiles * kLanes};
  }
  template <typename Element>
  FI_HD static Element* at(char* memory, int64_t offset) {
    return reinterpret_cast<Element*>(memory + offset);
  }
};

}  // namespace fastinterp
