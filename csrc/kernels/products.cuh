// The three matrix products behind CAM, its discrepancy and their gradients, as block programs.
//
// A block has kThreads = kSlices x kLanes threads: a lane is one position of the feature map, and
// the slices share out the channels. Sums run in an order that the sizes alone decide.
#pragma once

#include "maps.cuh"

namespace fastinterp {

constexpr int kLanes = 64;
constexpr int kSlices = 4;
constexpr int kThreads = kLanes * kSlices;
constexpr int kGroup = 16;           // classes whose sums a thread holds in registers
constexpr int kStaged = 32;          // channels of one slice whose weights are staged at a time
constexpr int kAhead = 4;            // channels whose values a thread loads at a time
constexpr int kChannelsAtOnce = 16;  // channels whose sums a thread holds in registers
static_assert(kStaged % kAhead == 0);
constexpr int kShared = kThreads * kGroup;  // accumulators of shared memory that each product needs

FI_HD int64_t tiles_of(const Sizes& sizes) { return (sizes.positions + kLanes - 1) / kLanes; }
FI_HD int64_t groups_of(const Sizes& sizes) { return (sizes.classes + kGroup - 1) / kGroup; }

// For the positions of one tile and the classes of one group:
//   sums[f * kGroup + c] = sum_k weight[first_class + c, k] value_f(k, p),
// complete in the threads of slice 0. `load(k, p, values)` gives the Fields values.
template <int Fields, typename T, typename Block, typename Load>
FI_HD void class_product(Block& block, Acc<T>* shared, Local<Block, Acc<T>, Fields * kGroup>& sums,
                         const T* weight, const Sizes& sizes, int64_t first_class, int64_t tile,
                         const Load& load) {
  const int64_t length = (sizes.channels + kSlices - 1) / kSlices;
  for (int64_t begin = 0; begin < length; begin += kStaged) {
    block.each(kSlices * kStaged * kGroup, [&](int64_t i) {
      const int64_t j = begin + i % kStaged;
      const int64_t c = first_class + i / kStaged % kGroup;
      const int64_t slice = i / (kStaged * kGroup), k = slice * length + j;
      const bool inside = j < length && k < sizes.channels && c < sizes.classes;
      shared[(slice * kStaged + i % kStaged) * kGroup + i / kStaged % kGroup] =
          inside ? static_cast<Acc<T>>(weight[c * sizes.channels + k]) : Acc<T>(0);
    });
    block.each_thread([&](int t) {
      const int64_t p = tile * kLanes + t % kLanes, slice = t / kLanes;
      if (p >= sizes.positions) return;
      const int64_t first = slice * length + begin;
      int64_t last = begin + kStaged < length ? first + kStaged : (slice + 1) * length;
      last = last < sizes.channels ? last : sizes.channels;
      for (int64_t k = first; k < last; k += kAhead) {
        // All loads before the first sum: memory is far away, and they travel together.
        Acc<T> values[kAhead][Fields] = {};
        FI_UNROLL
        for (int i = 0; i < kAhead; ++i) {
          if (k + i < last) load(k + i, p, values[i]);
        }
        FI_UNROLL
        for (int i = 0; i < kAhead; ++i) {
          const Acc<T>* weights = shared + (slice * kStaged + k - first + i) * kGroup;
          FI_UNROLL
          for (int f = 0; f < Fields; ++f) {
            FI_UNROLL
            for (int c = 0; c < kGroup; ++c) {
              sums.at(t, f * kGroup + c) += weights[c] * values[i][f];
            }
          }
        }
      }
    });
  }
  for (int slice = 1; slice < kSlices; ++slice) {
    block.each_thread([&](int t) {
      if (t / kLanes != slice) return;
      FI_UNROLL
      for (int i = 0; i < Fields * kGroup; ++i) shared[i * kLanes + t % kLanes] = sums.at(t, i);
    });
    block.each_thread([&](int t) {
      if (t >= kLanes) return;
      FI_UNROLL
      for (int i = 0; i < Fields * kGroup; ++i) sums.at(t, i) += shared[i * kLanes + t];
    });
  }
}

// Channels that a block's threads hold sums of at a time, and a part of those that there are.
constexpr int kWide = kSlices * kChannelsAtOnce;

struct Channels {
  int64_t begin, end;  // begin is a multiple of kWide
};

FI_HD Channels all_channels(const Sizes& sizes) { return {0, sizes.channels}; }

// For the positions of one tile and some channels: sum_c weight[c, k] value_f(c, p). `load(c, p,
// values)` gives the Fields values. emit(first, sum), for kWide channels from `first` on, is called
// by all threads, when nobody needs `shared` any more: of its lane t % kLanes, thread t has
// sum(t, f, i), that of channel first + t / kLanes * kChannelsAtOnce + i.
template <int Fields, typename T, typename Block, typename Load, typename Emit>
FI_HD void channel_product(Block& block, Acc<T>* shared, const T* weight, const Sizes& sizes,
                           int64_t tile, const Channels& part, const Load& load, const Emit& emit) {
  constexpr int kClasses = kShared / kWide;
  Local<Block, Acc<T>, Fields * kChannelsAtOnce> sums(block);
  for (int64_t first = part.begin; first < part.end; first += kWide) {
    for (int64_t begin = 0; begin < sizes.classes; begin += kClasses) {
      const int64_t left = sizes.classes - begin, classes = left < kClasses ? left : kClasses;
      block.each(classes * kWide, [&](int64_t i) {
        const int64_t k = first + i % kWide;
        const bool inside = k < sizes.channels;
        shared[i] = inside ? static_cast<Acc<T>>(weight[(begin + i / kWide) * sizes.channels + k])
                           : Acc<T>(0);
      });
      block.each_thread([&](int t) {
        const int64_t p = tile * kLanes + t % kLanes, slice = t / kLanes;
        const int64_t k = first + slice * kChannelsAtOnce, channels = sizes.channels - k;
        if (p >= sizes.positions || channels <= 0) return;
        if (begin == 0) {
          FI_UNROLL
          for (int i = 0; i < Fields * kChannelsAtOnce; ++i) sums.at(t, i) = 0;
        }
        for (int64_t c = 0; c < classes; ++c) {
          Acc<T> values[Fields];
          load(begin + c, p, values);
          const Acc<T>* weights = shared + c * kWide + slice * kChannelsAtOnce;
          FI_UNROLL
          for (int f = 0; f < Fields; ++f) {
            FI_UNROLL
            for (int i = 0; i < kChannelsAtOnce; ++i) {
              sums.at(t, f * kChannelsAtOnce + i) += weights[i] * values[f];
            }
          }
        }
      });
    }
    emit(first, [&](int t, int f, int i) { return sums.at(t, f * kChannelsAtOnce + i); });
  }
}

// For one channel and the classes of one group, over the images first_image..last_image - 1:
//   out[c] = sum over images n and positions p of term(n, c, p, value),
// where value = load(n, p). out holds one number for each class of the whole layer.
template <typename T, typename Block, typename Load, typename Term>
FI_HD void weight_product(Block& block, Acc<T>* shared, const Sizes& sizes, int64_t first_class,
                          int64_t first_image, int64_t last_image, const Load& load,
                          const Term& term, Acc<T>* out, int64_t out_stride) {
  Local<Block, Acc<T>, kGroup> sums(block);
  block.each_thread([&](int t) {
    const int64_t count = (last_image - first_image) * sizes.positions;
    for (int64_t i = t; i < count; i += kThreads) {
      const int64_t n = first_image + i / sizes.positions, p = i % sizes.positions;
      const auto value = load(n, p);
      FI_UNROLL
      for (int c = 0; c < kGroup; ++c) {
        if (first_class + c < sizes.classes) sums.at(t, c) += term(n, first_class + c, p, value);
      }
    }
    FI_UNROLL
    for (int c = 0; c < kGroup; ++c) shared[c * kThreads + t] = sums.at(t, c);
  });
  for (int half = kThreads / 2; half > 0; half /= 2) {
    block.each(half * kGroup, [&](int64_t i) {
      Acc<T>* row = shared + i / half * kThreads;
      row[i % half] += row[i % half + half];
    });
  }
  block.each(kGroup, [&](int64_t c) {
    if (first_class + c < sizes.classes) out[(first_class + c) * out_stride] = shared[c * kThreads];
  });
}

}  // namespace fastinterp
