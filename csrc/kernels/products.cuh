// The three matrix products of CAM, the discrepancy and their gradients.
//
// A block has kThreads = kChannelSlices x kTilePositions threads. Thread t works on position
// t % kTilePositions of a tile and on slice t / kTilePositions of the channels. The order of every
// sum depends on the sizes alone.
#pragma once

#include "maps.cuh"

namespace fastinterp {

constexpr int kTilePositions = 64;
constexpr int kChannelSlices = 4;
constexpr int kThreads = kTilePositions * kChannelSlices;
constexpr int kClassTile = 16;       // classes whose sums a thread holds in registers
constexpr int kStagedChannels = 32;  // channels of one slice whose weights are staged at a time
constexpr int kPrefetch = 4;         // channels whose values a thread loads at a time
constexpr int kThreadChannels = 16;  // channels whose sums a thread holds in registers
static_assert(kStagedChannels % kPrefetch == 0);
constexpr int kSharedAccumulators =
    kThreads * kClassTile;  // shared memory of each product, in AccType

FI_HD int64_t tiles_of(const Sizes& sizes) {
  return (sizes.positions + kTilePositions - 1) / kTilePositions;
}
FI_HD int64_t class_tiles_of(const Sizes& sizes) {
  return (sizes.classes + kClassTile - 1) / kClassTile;
}

// For the positions of one tile and the classes of one class tile:
//   sums[f * kClassTile + c] = sum_k weight[first_class + c, k] value_f(k, p),
// complete in the threads of slice 0. load(k, p, values) writes the Fields values.
template <int Fields, typename T, typename Block, typename Load>
FI_HD void class_product(Block& block, AccType<T>* shared,
                         Local<Block, AccType<T>, Fields * kClassTile>& sums, const T* weight,
                         const Sizes& sizes, int64_t first_class, int64_t tile, const Load& load) {
  const int64_t length = (sizes.channels + kChannelSlices - 1) / kChannelSlices;
  for (int64_t begin = 0; begin < length; begin += kStagedChannels) {
    block.each(kChannelSlices * kStagedChannels * kClassTile, [&](int64_t i) {
      const int64_t j = begin + i % kStagedChannels;
      const int64_t c = first_class + i / kStagedChannels % kClassTile;
      const int64_t slice = i / (kStagedChannels * kClassTile), k = slice * length + j;
      const bool inside = j < length && k < sizes.channels && c < sizes.classes;
      shared[(slice * kStagedChannels + i % kStagedChannels) * kClassTile +
             i / kStagedChannels % kClassTile] =
          inside ? static_cast<AccType<T>>(weight[c * sizes.channels + k]) : AccType<T>(0);
    });
    block.each_thread([&](int t) {
      const int64_t p = tile * kTilePositions + t % kTilePositions, slice = t / kTilePositions;
      if (p >= sizes.positions) return;
      const int64_t first = slice * length + begin;
      int64_t last =
          begin + kStagedChannels < length ? first + kStagedChannels : (slice + 1) * length;
      last = last < sizes.channels ? last : sizes.channels;
      for (int64_t k = first; k < last; k += kPrefetch) {
        // All loads before the first sum, so that their latencies overlap.
        AccType<T> values[kPrefetch][Fields] = {};
        FI_UNROLL
        for (int i = 0; i < kPrefetch; ++i) {
          if (k + i < last) load(k + i, p, values[i]);
        }
        FI_UNROLL
        for (int i = 0; i < kPrefetch; ++i) {
          const AccType<T>* weights =
              shared + (slice * kStagedChannels + k - first + i) * kClassTile;
          FI_UNROLL
          for (int f = 0; f < Fields; ++f) {
            FI_UNROLL
            for (int c = 0; c < kClassTile; ++c) {
              sums.at(t, f * kClassTile + c) += weights[c] * values[i][f];
            }
          }
        }
      }
    });
  }
  for (int slice = 1; slice < kChannelSlices; ++slice) {
    block.each_thread([&](int t) {
      if (t / kTilePositions != slice) return;
      FI_UNROLL
      for (int i = 0; i < Fields * kClassTile; ++i)
        shared[i * kTilePositions + t % kTilePositions] = sums.at(t, i);
    });
    block.each_thread([&](int t) {
      if (t >= kTilePositions) return;
      FI_UNROLL
      for (int i = 0; i < Fields * kClassTile; ++i) sums.at(t, i) += shared[i * kTilePositions + t];
    });
  }
}

// Channels whose sums a block holds at a time.
constexpr int kChannelTile = kChannelSlices * kThreadChannels;

struct Channels {
  int64_t begin, end;  // begin is a multiple of kChannelTile
};

FI_HD Channels all_channels(const Sizes& sizes) { return {0, sizes.channels}; }

// For the positions of one tile and some channels: sum_c weight[c, k] value_f(c, p). load(c, p,
// values) writes the Fields values. All threads call emit(first, sum) for each kChannelTile
// channels from `first` on: sum(t, f, i) is the sum of thread t for position t % kTilePositions and
// channel first + t / kTilePositions * kThreadChannels + i. emit may overwrite `shared`.
template <int Fields, typename T, typename Block, typename Load, typename Emit>
FI_HD void channel_product(Block& block, AccType<T>* shared, const T* weight, const Sizes& sizes,
                           int64_t tile, const Channels& part, const Load& load, const Emit& emit) {
  constexpr int kClasses = kSharedAccumulators / kChannelTile;
  Local<Block, AccType<T>, Fields * kThreadChannels> sums(block);
  for (int64_t first = part.begin; first < part.end; first += kChannelTile) {
    for (int64_t begin = 0; begin < sizes.classes; begin += kClasses) {
      const int64_t left = sizes.classes - begin, classes = left < kClasses ? left : kClasses;
      block.each(classes * kChannelTile, [&](int64_t i) {
        const int64_t k = first + i % kChannelTile;
        const bool inside = k < sizes.channels;
        shared[i] =
            inside
                ? static_cast<AccType<T>>(weight[(begin + i / kChannelTile) * sizes.channels + k])
                : AccType<T>(0);
      });
      block.each_thread([&](int t) {
        const int64_t p = tile * kTilePositions + t % kTilePositions, slice = t / kTilePositions;
        const int64_t k = first + slice * kThreadChannels, channels = sizes.channels - k;
        if (p >= sizes.positions || channels <= 0) return;
        if (begin == 0) {
          FI_UNROLL
          for (int i = 0; i < Fields * kThreadChannels; ++i) sums.at(t, i) = 0;
        }
        for (int64_t c = 0; c < classes; ++c) {
          AccType<T> values[Fields];
          load(begin + c, p, values);
          const AccType<T>* weights = shared + c * kChannelTile + slice * kThreadChannels;
          FI_UNROLL
          for (int f = 0; f < Fields; ++f) {
            FI_UNROLL
            for (int i = 0; i < kThreadChannels; ++i) {
              sums.at(t, f * kThreadChannels + i) += weights[i] * values[f];
            }
          }
        }
      });
    }
    emit(first, [&](int t, int f, int i) { return sums.at(t, f * kThreadChannels + i); });
  }
}

// For one channel and the classes of one class tile, over the images first_image..last_image - 1:
//   out[c] = sum over images n and positions p of term(n, c, p, value),
// where value = load(n, p). `out` points to class 0.
template <typename T, typename Block, typename Load, typename Term>
FI_HD void weight_product(Block& block, AccType<T>* shared, const Sizes& sizes, int64_t first_class,
                          int64_t first_image, int64_t last_image, const Load& load,
                          const Term& term, AccType<T>* out, int64_t out_stride) {
  Local<Block, AccType<T>, kClassTile> sums(block);
  block.each_thread([&](int t) {
    // Positions of all images in turn, kThreads apart, without a division for each of them.
    const int64_t images = kThreads / sizes.positions, step = kThreads % sizes.positions;
    int64_t n = first_image + t / sizes.positions, p = t % sizes.positions;
    for (; n < last_image; n += images, p += step) {
      if (p >= sizes.positions) {
        p -= sizes.positions;
        if (++n >= last_image) break;
      }
      const auto value = load(n, p);
      FI_UNROLL
      for (int c = 0; c < kClassTile; ++c) {
        if (first_class + c < sizes.classes) sums.at(t, c) += term(n, first_class + c, p, value);
      }
    }
    FI_UNROLL
    for (int c = 0; c < kClassTile; ++c) shared[c * kThreads + t] = sums.at(t, c);
  });
  for (int half = kThreads / 2; half > 0; half /= 2) {
    block.each(half * kClassTile, [&](int64_t i) {
      const int place = static_cast<int>(i) % half;
      AccType<T>* row = shared + static_cast<int>(i) / half * kThreads;
      row[place] += row[place + half];
    });
  }
  block.each(kClassTile, [&](int64_t c) {
    if (first_class + c < sizes.classes) out[(first_class + c) * out_stride] = shared[c * kThreads];
  });
}

}  // namespace fastinterp
