// The discrepancy of eq. (8) as block programs, in three steps:
//   measure  the maps' l1 distances S_c and the logits, tile by tile; only signs are kept;
//   settle   D and its coefficients q, r from them (coefficients.h), one block for each image;
//   spread   dD/dA' = (1/u) W^T (q sign + r) and dD/dA = -(1/u) W^T (q sign), tile by tile.
// Where an image is a single tile, one block takes all three steps in one launch.
#pragma once

#include "coefficients.h"
#include "products.h"

namespace fastinterp {

template <typename T>
struct Discrepancy {
  Sizes sizes;
  Maps<T> before, after;  // A, A'
  const T* weight;        // [C, K]
  const T* bias;          // [C] or null
  const int64_t* labels;  // [N]
  bool weighted;
  int8_t* signs;        // [N, C, u], of W (A' - A)
  Acc<T>* partial;      // [N, tiles, 2, C]: sums over a tile of |W (A' - A)| and of W A'
  Acc<T>* coefficient;  // [N, 2, C]: q, r
  T* value;             // [N]
  const T* grad;        // [N], by D; null stands for ones
  Maps<T> by_before, by_after;

  template <typename Block>
  FI_HD void measure(Block& block, Acc<T>* shared, int64_t n, int64_t tile, int64_t group) const {
    const int64_t first_class = group * kGroup;
    Local<Block, Acc<T>, 2 * kGroup> sums(block);
    class_product<2, T>(block, shared, sums, weight, sizes, first_class, tile,
                        [&](int64_t k, int64_t p, Acc<T>* values) {
                          values[1] = static_cast<Acc<T>>(after.at(n, k, p));
                          values[0] = values[1] - static_cast<Acc<T>>(before.at(n, k, p));
                        });
    block.each_thread([&](int t) {
      if (t >= kLanes) return;
      const int64_t p = tile * kLanes + t;
      const bool inside = p < sizes.positions;
      FI_UNROLL
      for (int c = 0; c < kGroup; ++c) {
        const Acc<T> map = sums.at(t, c);
        if (inside && first_class + c < sizes.classes) {
          signs[(n * sizes.classes + first_class + c) * sizes.positions + p] =
              static_cast<int8_t>((map > 0) - (map < 0));
        }
        shared[c * kLanes + t] = inside ? (map < 0 ? -map : map) : Acc<T>(0);
        shared[(kGroup + c) * kLanes + t] = inside ? sums.at(t, kGroup + c) : Acc<T>(0);
      }
    });
    if (partial == nullptr) return;  // a backward pass wants the signs alone
    for (int half = kLanes / 2; half > 0; half /= 2) {
      block.each(2 * kGroup * half, [&](int64_t i) {
        Acc<T>* row = shared + i / half * kLanes;
        row[i % half] += row[i % half + half];
      });
    }
    block.each(2 * kGroup, [&](int64_t i) {
      const int64_t field = i / kGroup, c = first_class + i % kGroup;
      if (c >= sizes.classes) return;
      partial[((n * tiles_of(sizes) + tile) * 2 + field) * sizes.classes + c] = shared[i * kLanes];
    });
  }

  template <typename Block>
  FI_HD void settle(Block& block, Acc<T>* shared, int64_t n) const {
    const int64_t tiles = tiles_of(sizes), classes = sizes.classes;
    Acc<T>* q = coefficient + 2 * n * classes;
    Acc<T>* r = q + classes;
    block.each(classes, [&](int64_t c) {
      Acc<T> size = 0, logit = 0;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const Acc<T>* from = partial + (n * tiles + tile) * 2 * classes;
        size += from[c];
        logit += from[classes + c];
      }
      q[c] = size / static_cast<Acc<T>>(sizes.positions);
      r[c] = logit / static_cast<Acc<T>>(sizes.positions) +
             (bias ? static_cast<Acc<T>>(bias[c]) : Acc<T>(0));
    });
    const Acc<T> total = coefficients(block, shared, q, r, classes, labels[n], weighted, q, r);
    block.each(1, [&](int64_t) { value[n] = static_cast<T>(total); });
  }

  template <typename Block>
  FI_HD void spread_after(Block& block, int64_t n, int64_t tile) const {
    const Acc<T>* q = coefficient + 2 * n * sizes.classes;
    const Acc<T> scale = scale_of(n);
    channel_product<1, T>(
        block, weight, sizes, tile,
        [&](int64_t c, int64_t p, Acc<T>* values) {
          values[0] = q[c] * sign_at(n, c, p) + q[sizes.classes + c];
        },
        [&](int64_t k, int64_t p, const Acc<T>* sums) {
          by_after.at(n, k, p) = static_cast<T>(scale * sums[0]);
        });
  }

  template <typename Block>
  FI_HD void spread_both(Block& block, int64_t n, int64_t tile) const {
    const Acc<T>* q = coefficient + 2 * n * sizes.classes;
    const Acc<T> scale = scale_of(n);
    channel_product<2, T>(
        block, weight, sizes, tile,
        [&](int64_t c, int64_t p, Acc<T>* values) {
          values[0] = q[c] * sign_at(n, c, p);
          values[1] = values[0] + q[sizes.classes + c];
        },
        [&](int64_t k, int64_t p, const Acc<T>* sums) {
          by_before.at(n, k, p) = static_cast<T>(-scale * sums[0]);
          if (by_after.data) by_after.at(n, k, p) = static_cast<T>(scale * sums[1]);
        });
  }

  FI_HD Acc<T> sign_at(int64_t n, int64_t c, int64_t p) const {
    return static_cast<Acc<T>>(signs[(n * sizes.classes + c) * sizes.positions + p]);
  }

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
    this->measure(block, static_cast<Acc<T>*>(memory), block.x, block.y, block.z);
  }
};

// Grid [N].
template <typename T>
struct DiscrepancySettle : Discrepancy<T> {
  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    this->settle(block, static_cast<Acc<T>*>(memory), block.x);
  }
};

// Grid [N, tiles].
template <typename T>
struct DiscrepancySpread : Discrepancy<T> {
  template <typename Block>
  FI_HD void operator()(Block& block, void*) const {
    if (this->by_before.data) {
      this->spread_both(block, block.x, block.y);
    } else {
      this->spread_after(block, block.x, block.y);
    }
  }
};

// Grid [N]: all three steps, for images of a single tile.
template <typename T>
struct DiscrepancyWhole : Discrepancy<T> {
  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    Acc<T>* shared = static_cast<Acc<T>*>(memory);
    for (int64_t group = 0; group < groups_of(this->sizes); ++group) {
      this->measure(block, shared, block.x, 0, group);
    }
    this->settle(block, shared, block.x);
    if (this->by_after.data) this->spread_after(block, block.x, 0);
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
          return q[c] * this->sign_at(n, c, p) * value.difference + q[s.classes + c] * value.after;
        },
        weight_partial + part * s.classes * s.channels + k, s.channels);
  }
};

}  // namespace fastinterp
