// The discrepancy of eq. (8) as block programs, in three steps:
//   measure  the maps' l1 distances S_c and the logits, tile by tile; only signs are kept;
//   settle   D and its coefficients q, r from them (coefficients.h), one block for each image;
//   spread   dD/dA' = (1/u) W^T (q sign + r) and dD/dA = -(1/u) W^T (q sign), tile by tile.
// discrepancy_cluster.h takes all three in one launch.
#pragma once

#include "discrepancy_softmax.cuh"
#include "signs.cuh"
#include "store_tile.cuh"

namespace fastinterp {

template <typename T>
struct Discrepancy {
  Sizes sizes;
  Maps<T> before, after;  // A, A'
  const T* weight;        // [C, K]
  const T* bias;          // [C] or null
  const int64_t* labels;  // [N]
  bool weighted;
  uint32_t* signs;      // [N, groups, u], of W (A' - A)
  double* partial;      // [N, tiles, 2, C]: sums over a tile of |W (A' - A)| and of W A'
  Acc<T>* coefficient;  // [N, 2, C]: q, r
  T* value;             // [N]
  const T* grad;        // [N], by D; null stands for ones
  Maps<T> by_before, by_after;

  // One group of classes on one tile; `load` is class_product's, the others as in summarise.
  template <typename Block, typename Load, typename Keep, typename Total>
  FI_HD void measure(Block& block, Acc<T>* shared, int64_t tile, int64_t group, const Load& load,
                     const Keep& keep, const Total& total, bool signs_alone = false) const {
    Local<Block, Acc<T>, 2 * kGroup> sums(block);
    class_product<2, T>(block, shared, sums, weight, sizes, group * kGroup, tile, load);
    summarise(
        block, shared, tile, group,
        [&](int t, int field, int c) { return sums.at(t, field * kGroup + c); }, keep, total,
        signs_alone);
  }

  // From map(lane, field, c), W (A' - A) and W A': keep(p, word) takes the signs at a position, and
  // total(field, c, sum) the sums over the tile of |W (A' - A)| and of W A', in double, which a
  // backward pass does without.
  template <typename Block, typename Map, typename Keep, typename Total>
  FI_HD void summarise(Block& block, Acc<T>* shared, int64_t tile, int64_t group, const Map& map_of,
                       const Keep& keep, const Total& total, bool signs_alone) const {
    const int64_t first_class = group * kGroup;
    double* sums = reinterpret_cast<double*>(shared);
    static_assert(2 * kGroup * kLanes * sizeof(double) <= kShared * sizeof(Acc<T>));
    block.each_thread([&](int t) {
      if (t >= kLanes) return;
      const int64_t p = tile * kLanes + t;
      const bool inside = p < sizes.positions;
      uint32_t word = 0;
      FI_UNROLL
      for (int c = 0; c < kGroup; ++c) {
        const Acc<T> map = map_of(t, 0, c);
        word |= Signs::bits(map, c);
        if (signs_alone) continue;
        sums[c * kLanes + t] = inside ? static_cast<double>(map < 0 ? -map : map) : 0.0;
        sums[(kGroup + c) * kLanes + t] = inside ? static_cast<double>(map_of(t, 1, c)) : 0.0;
      }
      if (inside) keep(p, word);
    });
    if (signs_alone) return;
    for (int half = kLanes / 2; half > 0; half /= 2) {
      block.each(2 * kGroup * half, [&](int64_t i) {
        double* row = sums + i / half * kLanes;
        row[i % half] += row[i % half + half];
      });
    }
    block.each(2 * kGroup, [&](int64_t i) {
      const int64_t c = first_class + i % kGroup;
      if (c < sizes.classes) total(i / kGroup, c, sums[i * kLanes]);
    });
  }

  template <typename Block>
  FI_HD void settle(Block& block, double* shared, int64_t n) const {
    const int64_t tiles = tiles_of(sizes), classes = sizes.classes;
    double* const first = partial + n * tiles * 2 * classes;  // of the image's tiles
    block.each(classes, [&](int64_t c) {
      for (int64_t tile = 1; tile < tiles; ++tile) {
        const double* from = first + tile * 2 * classes;
        first[c] += from[c];
        first[classes + c] += from[classes + c];
      }
    });
    conclude(block, shared, n, first, coefficient + 2 * n * classes, true);
  }

  // From the sums [2, C] over all positions, which are overwritten: q and r, and the value where it
  // is to be stored.
  template <typename Block>
  FI_HD void conclude(Block& block, double* shared, int64_t n, double* sums, Acc<T>* q,
                      bool with_value) const {
    const int64_t classes = sizes.classes;
    block.each(classes, [&](int64_t c) {
      sums[c] /= static_cast<double>(sizes.positions);
      sums[classes + c] = sums[classes + c] / static_cast<double>(sizes.positions) + bias_of(c);
    });
    const double total = coefficients(block, shared, sums, sums + classes, classes, labels[n],
                                      weighted, [&](int64_t c, double by_size, double by_logit) {
                                        q[c] = static_cast<Acc<T>>(by_size);
                                        q[classes + c] = static_cast<Acc<T>>(by_logit);
                                      });
    if (with_value) block.each(1, [&](int64_t) { value[n] = static_cast<T>(total); });
  }

  // dD/dA' for one tile, from the coefficients q [C], r [C] and sign(c, p).
  template <typename Block, typename Sign>
  FI_HD void spread_after(Block& block, Acc<T>* shared, int64_t n, int64_t tile,
                          const Channels& part, const Acc<T>* q, const Sign& sign) const {
    channel_product<1, T>(
        block, shared, weight, sizes, tile, part,
        [&](int64_t c, int64_t p, Acc<T>* values) {
          values[0] = q[c] * static_cast<Acc<T>>(sign(c, p)) + q[sizes.classes + c];
        },
        emit_after(block, room_of<T>(shared), n, tile));
  }

  template <typename Block>
  FI_HD auto emit_after(Block& block, const Room<T>& room, int64_t n, int64_t tile) const {
    const Acc<T> scale = scale_of(n);
    return [this, &block, room, n, tile, scale](int64_t first, const auto& sum) {
      store_tile(block, room, by_after, sizes, n, tile, first,
                 [&](int t, int i) { return scale * sum(t, 0, i); });
    };
  }

  template <typename Block>
  FI_HD void spread_both(Block& block, Acc<T>* shared, int64_t n, int64_t tile) const {
    const Acc<T>* q = coefficient + 2 * n * sizes.classes;
    const Acc<T> scale = scale_of(n);
    const Room<T> room = room_of<T>(shared);
    const Signs kept = signs_of(n);
    channel_product<2, T>(
        block, shared, weight, sizes, tile, all_channels(sizes),
        [&](int64_t c, int64_t p, Acc<T>* values) {
          values[0] = q[c] * static_cast<Acc<T>>(kept.at(c, p));
          values[1] = values[0] + q[sizes.classes + c];
        },
        [&](int64_t first, const auto& sum) {
          store_tile(block, room, by_before, sizes, n, tile, first,
                     [&](int t, int i) { return -scale * sum(t, 0, i); });
          store_tile(block, room, by_after, sizes, n, tile, first,
                     [&](int t, int i) { return scale * sum(t, 1, i); });
        });
  }

  FI_HD Signs signs_of(int64_t n) const {
    return {signs + n * groups_of(sizes) * sizes.positions, sizes.positions};
  }

  FI_HD double bias_of(int64_t c) const { return bias ? static_cast<double>(bias[c]) : 0.0; }

  FI_HD Acc<T> scale_of(int64_t n) const {
    const Acc<T> by_value = grad ? static_cast<Acc<T>>(grad[n]) : Acc<T>(1);
    return by_value / static_cast<Acc<T>>(sizes.positions);
  }
};

// Grid [N, tiles, groups].
template <typename T>
struct DiscrepancyMeasure : Discrepancy<T> {
  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    const auto& s = this->sizes;
    const int64_t n = block.x, tile = block.y, group = block.z;
    const Signs kept = this->signs_of(n);
    this->measure(
        block, static_cast<Acc<T>*>(memory), tile, group,
        [&](int64_t k, int64_t p, Acc<T>* values) {
          values[1] = static_cast<Acc<T>>(this->after.at(n, k, p));
          values[0] = values[1] - static_cast<Acc<T>>(this->before.at(n, k, p));
        },
        [&](int64_t p, uint32_t word) { kept.word(group, p) = word; },
        [&](int64_t field, int64_t c, double sum) {
          this->partial[((n * tiles_of(s) + tile) * 2 + field) * s.classes + c] = sum;
        },
        this->partial == nullptr);
  }
};

// Grid [N].
template <typename T>
struct DiscrepancySettle : Discrepancy<T> {
  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    this->settle(block, static_cast<double*>(memory), block.x);
  }
};

// Grid [N, tiles].
template <typename T>
struct DiscrepancySpread : Discrepancy<T> {
  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    Acc<T>* shared = static_cast<Acc<T>*>(memory);
    const int64_t n = block.x, tile = block.y;
    if (this->by_before.data) {
      this->spread_both(block, shared, n, tile);
      return;
    }
    const Signs kept = this->signs_of(n);
    this->spread_after(block, shared, n, tile, all_channels(this->sizes),
                       this->coefficient + 2 * n * this->sizes.classes,
                       [&](int64_t c, int64_t p) { return kept.at(c, p); });
  }
};

// Grid [K, groups, parts]: dD/dW = (1/u) sum_p q sign (A' - A) + r A'.
template <typename T>
struct DiscrepancyWeight : Discrepancy<T> {
  Acc<T>* weight_partial;  // [parts, C, K]
  int64_t parts;

  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    const auto& s = this->sizes;
    const int64_t k = block.x, part = block.z;
    struct Pair {
      Acc<T> difference, after;
    };
    weight_product<T>(
        block, static_cast<Acc<T>*>(memory), s, block.y * kGroup, s.images * part / parts,
        s.images * (part + 1) / parts,
        [&](int64_t n, int64_t p) {
          const Acc<T> scale = this->scale_of(n);
          const Acc<T> a = static_cast<Acc<T>>(this->after.at(n, k, p));
          return Pair{scale * (a - static_cast<Acc<T>>(this->before.at(n, k, p))), scale * a};
        },
        [&](int64_t n, int64_t c, int64_t p, const Pair& value) {
          const Acc<T>* q = this->coefficient + 2 * n * s.classes;
          const Acc<T> sign = static_cast<Acc<T>>(this->signs_of(n).at(c, p));
          return q[c] * sign * value.difference + q[s.classes + c] * value.after;
        },
        weight_partial + part * s.classes * s.channels + k, s.channels);
  }
};

}  // namespace fastinterp
