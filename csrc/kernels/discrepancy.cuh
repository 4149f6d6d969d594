// The discrepancy of eq. (8) in three kernels. With M = W (A' - A), the difference of the maps:
//   DiscrepancyForwardKernel    for each tile of positions, the sums of |M| (the l1 distances S_c)
//                               and of W A' (the logits); stores the signs of M
//   DiscrepancySoftmaxKernel    for each image, D, q = dD/dS and r = dD/dlogits
//   DiscrepancyBackwardKernel   for each tile, dD/dA' = (1/u) W^T (q sign(M) + r) and
//                               dD/dA = -(1/u) W^T (q sign(M))
// DiscrepancyWeightKernel computes dD/dW. DiscrepancyClusterKernel (discrepancy_cluster.cuh) does
// the first three in one launch.
#pragma once

#include "discrepancy_softmax.cuh"
#include "signs.cuh"
#include "store_tile.cuh"

namespace fastinterp {

template <typename T>
struct DiscrepancyParams {
  Sizes sizes;
  Maps<T> features, features_adv;  // A, A'
  const T* weight;                 // [C, K]
  const T* bias;                   // [C] or null
  const int64_t* labels;           // [N]
  bool weighted;
  uint32_t* signs;          // [N, class tiles, u], of M
  double* partial;          // [N, tiles, 2, C]: the sums of |M| and of W A' over a tile
  AccType<T>* coefficient;  // [N, 2, C]: q, r
  T* value;                 // [N]
  const T* grad;            // [N], the upstream gradient; null stands for ones
  Maps<T> grad_features, grad_features_adv;

  // One tile of classes on one tile of positions. `load` is that of class_product, the rest is that
  // of reduce_maps.
  template <typename Block, typename Load, typename StoreSigns, typename Total>
  FI_HD void forward_tile(Block& block, AccType<T>* shared, int64_t tile, int64_t class_tile,
                          const Load& load, const StoreSigns& store_signs, const Total& total,
                          bool signs_alone = false) const {
    Local<Block, AccType<T>, 2 * kClassTile> sums(block);
    class_product<2, T>(block, shared, sums, weight, sizes, class_tile * kClassTile, tile, load);
    reduce_maps(
        block, shared, tile, class_tile,
        [&](int t, int field, int c) { return sums.at(t, field * kClassTile + c); }, store_signs,
        total, signs_alone);
  }

  // map_of(tile_position, field, c) is M (field 0) or W A' (field 1). Calls store_signs(p, word)
  // for each position and total(field, c, sum), in double, for the sums of |M| and of W A' over the
  // tile. With `signs_alone`, as in a backward pass, it computes no sums.
  template <typename Block, typename Map, typename StoreSigns, typename Total>
  FI_HD void reduce_maps(Block& block, AccType<T>* shared, int64_t tile, int64_t class_tile,
                         const Map& map_of, const StoreSigns& store_signs, const Total& total,
                         bool signs_alone) const {
    const int64_t first_class = class_tile * kClassTile;
    double* sums = reinterpret_cast<double*>(shared);
    static_assert(2 * kClassTile * kTilePositions * sizeof(double) <=
                  kSharedAccumulators * sizeof(AccType<T>));
    block.each_thread([&](int t) {
      if (t >= kTilePositions) return;
      const int64_t p = tile * kTilePositions + t;
      const bool inside = p < sizes.positions;
      uint32_t word = 0;
      FI_UNROLL
      for (int c = 0; c < kClassTile; ++c) {
        const AccType<T> map = map_of(t, 0, c);
        word |= Signs::bits(map, c);
        if (signs_alone) continue;
        sums[c * kTilePositions + t] = inside ? static_cast<double>(map < 0 ? -map : map) : 0.0;
        sums[(kClassTile + c) * kTilePositions + t] =
            inside ? static_cast<double>(map_of(t, 1, c)) : 0.0;
      }
      if (inside) store_signs(p, word);
    });
    if (signs_alone) return;
    for (int half = kTilePositions / 2; half > 0; half /= 2) {
      block.each(2 * kClassTile * half, [&](int64_t i) {
        const int place = static_cast<int>(i) % half;
        double* row = sums + static_cast<int>(i) / half * kTilePositions;
        row[place] += row[place + half];
      });
    }
    block.each(2 * kClassTile, [&](int64_t i) {
      const int64_t c = first_class + i % kClassTile;
      if (c < sizes.classes) total(i / kClassTile, c, sums[i * kTilePositions]);
    });
  }

  template <typename Block>
  FI_HD void softmax_image(Block& block, double* shared, int64_t n) const {
    const int64_t tiles = tiles_of(sizes), classes = sizes.classes;
    double* const first = partial + n * tiles * 2 * classes;  // the image's first tile
    block.each(classes, [&](int64_t c) {
      for (int64_t tile = 1; tile < tiles; ++tile) {
        const double* from = first + tile * 2 * classes;
        first[c] += from[c];
        first[classes + c] += from[classes + c];
      }
    });
    softmax_of_sums(block, shared, n, first, coefficient + 2 * n * classes, true);
  }

  // Computes q and r, and stores D if `with_value`, from the sums [2, C] over all positions. It
  // overwrites the sums.
  template <typename Block>
  FI_HD void softmax_of_sums(Block& block, double* shared, int64_t n, double* sums, AccType<T>* q,
                             bool with_value) const {
    const int64_t classes = sizes.classes;
    block.each(classes, [&](int64_t c) {
      sums[c] /= static_cast<double>(sizes.positions);
      sums[classes + c] = sums[classes + c] / static_cast<double>(sizes.positions) + bias_of(c);
    });
    const double total =
        discrepancy_softmax(block, shared, sums, sums + classes, classes, labels[n], weighted,
                            [&](int64_t c, double by_size, double by_logit) {
                              q[c] = static_cast<AccType<T>>(by_size);
                              q[classes + c] = static_cast<AccType<T>>(by_logit);
                            });
    if (with_value) block.each(1, [&](int64_t) { value[n] = static_cast<T>(total); });
  }

  // dD/dA' for one tile, from q [C], r [C] (behind q in memory) and sign(c, p).
  template <typename Block, typename Sign>
  FI_HD void backward_features_adv(Block& block, AccType<T>* shared, int64_t n, int64_t tile,
                                   const Channels& part, const AccType<T>* q,
                                   const Sign& sign) const {
    channel_product<1, T>(
        block, shared, weight, sizes, tile, part,
        [&](int64_t c, int64_t p, AccType<T>* values) {
          values[0] = q[c] * static_cast<AccType<T>>(sign(c, p)) + q[sizes.classes + c];
        },
        grad_features_adv_writer(block, shared_buffer<T>(shared), n, tile));
  }

  template <typename Block>
  FI_HD auto grad_features_adv_writer(Block& block, const SharedBuffer<T>& buffer, int64_t n,
                                      int64_t tile) const {
    const AccType<T> scale = scale_of(n);
    return [this, &block, buffer, n, tile, scale](int64_t first, const auto& sum) {
      store_tile(block, buffer, grad_features_adv, sizes, n, tile, first,
                 [&](int t, int i) { return scale * sum(t, 0, i); });
    };
  }

  template <typename Block>
  FI_HD void backward_both(Block& block, AccType<T>* shared, int64_t n, int64_t tile) const {
    const AccType<T>* q = coefficient + 2 * n * sizes.classes;
    const AccType<T> scale = scale_of(n);
    const SharedBuffer<T> buffer = shared_buffer<T>(shared);
    const Signs signs = signs_of(n);
    channel_product<2, T>(
        block, shared, weight, sizes, tile, all_channels(sizes),
        [&](int64_t c, int64_t p, AccType<T>* values) {
          values[0] = q[c] * static_cast<AccType<T>>(signs.at(c, p));
          values[1] = values[0] + q[sizes.classes + c];
        },
        [&](int64_t first, const auto& sum) {
          store_tile(block, buffer, grad_features, sizes, n, tile, first,
                     [&](int t, int i) { return -scale * sum(t, 0, i); });
          store_tile(block, buffer, grad_features_adv, sizes, n, tile, first,
                     [&](int t, int i) { return scale * sum(t, 1, i); });
        });
  }

  FI_HD Signs signs_of(int64_t n) const {
    return {signs + n * class_tiles_of(sizes) * sizes.positions, sizes.positions};
  }

  FI_HD double bias_of(int64_t c) const { return bias ? static_cast<double>(bias[c]) : 0.0; }

  FI_HD AccType<T> scale_of(int64_t n) const {
    const AccType<T> by_value = grad ? static_cast<AccType<T>>(grad[n]) : AccType<T>(1);
    return by_value / static_cast<AccType<T>>(sizes.positions);
  }
};

// Grid [N, tiles, class tiles].
template <typename T>
struct DiscrepancyForwardKernel : DiscrepancyParams<T> {
  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    const auto& s = this->sizes;
    const int64_t n = block.x, tile = block.y, class_tile = block.z;
    const Signs signs = this->signs_of(n);
    this->forward_tile(
        block, static_cast<AccType<T>*>(memory), tile, class_tile,
        [&](int64_t k, int64_t p, AccType<T>* values) {
          values[1] = static_cast<AccType<T>>(this->features_adv.at(n, k, p));
          values[0] = values[1] - static_cast<AccType<T>>(this->features.at(n, k, p));
        },
        [&](int64_t p, uint32_t word) { signs.word(class_tile, p) = word; },
        [&](int64_t field, int64_t c, double sum) {
          this->partial[((n * tiles_of(s) + tile) * 2 + field) * s.classes + c] = sum;
        },
        this->partial == nullptr);
  }
};

// Grid [N].
template <typename T>
struct DiscrepancySoftmaxKernel : DiscrepancyParams<T> {
  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    this->softmax_image(block, static_cast<double*>(memory), block.x);
  }
};

// Grid [N, tiles].
template <typename T>
struct DiscrepancyBackwardKernel : DiscrepancyParams<T> {
  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    AccType<T>* shared = static_cast<AccType<T>*>(memory);
    const int64_t n = block.x, tile = block.y;
    if (this->grad_features.data) {
      this->backward_both(block, shared, n, tile);
      return;
    }
    const Signs signs = this->signs_of(n);
    this->backward_features_adv(block, shared, n, tile, all_channels(this->sizes),
                                this->coefficient + 2 * n * this->sizes.classes,
                                [&](int64_t c, int64_t p) { return signs.at(c, p); });
  }
};

// Grid [K, class tiles, parts]: dD/dW = (1/u) sum_p q sign (A' - A) + r A'.
template <typename T>
struct DiscrepancyWeightKernel : DiscrepancyParams<T> {
  AccType<T>* weight_partial;  // [parts, C, K]
  int64_t parts;

  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    const auto& s = this->sizes;
    const int64_t k = block.x, part = block.z;
    struct Pair {
      AccType<T> difference, features_adv;
    };
    weight_product<T>(
        block, static_cast<AccType<T>*>(memory), s, block.y * kClassTile, s.images * part / parts,
        s.images * (part + 1) / parts,
        [&](int64_t n, int64_t p) {
          const AccType<T> scale = this->scale_of(n);
          const AccType<T> a = static_cast<AccType<T>>(this->features_adv.at(n, k, p));
          return Pair{scale * (a - static_cast<AccType<T>>(this->features.at(n, k, p))), scale * a};
        },
        [&](int64_t n, int64_t c, int64_t p, const Pair& value) {
          const AccType<T>* q = this->coefficient + 2 * n * s.classes;
          const AccType<T> sign = static_cast<AccType<T>>(this->signs_of(n).at(c, p));
          return q[c] * sign * value.difference + q[s.classes + c] * value.features_adv;
        },
        weight_partial + part * s.classes * s.channels + k, s.channels);
  }
};

}  // namespace fastinterp
