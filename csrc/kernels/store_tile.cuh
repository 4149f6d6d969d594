// Sums of a block on their way out: the mirror image of staging.h.
#pragma once

#include "products.cuh"

namespace fastinterp {

// A part of a block's shared memory, on 16 bytes, that is free for a while.
template <typename T>
struct Room {
  T* data;
  int size;  // in elements
};

// Where each product of products.h has its weights, once they have been read.
template <typename T>
FI_HD Room<T> room_of(Acc<T>* shared) {
  return {reinterpret_cast<T*>(shared), kShared * static_cast<int>(sizeof(Acc<T>) / sizeof(T))};
}

// Maps of kWide channels on a tile as lines without gaps: a line for each channel or, where maps of
// a single tile follow each other, one line for all of them. In shared memory a line begins as far
// behind a boundary of 16 bytes as in global memory, so that whole Chunks can go across.
template <typename T>
struct Lines {
  T* to;           // where the first line begins
  int64_t stride;  // from one line to the next
  int count, length;
  int pitch;        // from one channel to the next in shared memory
  int slack;        // the most elements that may lie before a line, behind a boundary
  int shift, step;  // what lies before the first line, and what each one adds to it

  FI_HD int offset(int line) const { return (shift + line * step) & (Chunk<T>::kSize - 1); }
  FI_HD int place(int channel, int lane) const { return channel * pitch + offset(channel) + lane; }
  FI_HD int size() const { return count > 1 ? count * pitch : slack + length; }
};

template <typename T>
FI_HD Lines<T> lines_of(const Maps<T>& maps, int64_t n, int64_t first, int64_t tile, int channels,
                        int width, bool whole) {
  constexpr int kSize = Chunk<T>::kSize;
  T* to = &maps.at(n, first, tile * kLanes);
  const auto address = reinterpret_cast<uintptr_t>(to);
  const int shift = static_cast<int>(address % sizeof(Chunk<T>) / sizeof(T));
  if (whole && maps.channel_stride == width) {
    return {to, 0, 1, channels * width, width, shift, shift, 0};
  }
  const int step = static_cast<int>(maps.channel_stride % kSize);
  const int slack = shift == 0 && step == 0 ? 0 : kSize - 1;
  const int pitch = slack == 0 ? kLanes : kLanes + kSize;
  return {to, maps.channel_stride, channels, width, pitch, slack, shift, step};
}

// From shared memory to global memory. Neighbouring threads have neighbouring Chunks, and only the
// ends of a line go element by element.
template <typename T, typename Block>
FI_HD void store_lines(Block& block, const T* from, const Lines<T>& lines) {
  constexpr int kSize = Chunk<T>::kSize;
  const int each = (lines.slack + lines.length + kSize - 1) / kSize;
  block.each(int64_t{lines.count} * each, [&](int64_t i) {
    const int line = static_cast<int>(i) / each, at = static_cast<int>(i) % each * kSize;
    const int begin = at - lines.offset(line);  // of the Chunk, in the line
    const T* source = from + line * lines.pitch + at;
    T* to = lines.to + line * lines.stride + begin;
    if (begin >= 0 && begin + kSize <= lines.length) {
      *reinterpret_cast<Chunk<T>*>(to) = *reinterpret_cast<const Chunk<T>*>(source);
      return;
    }
    FI_UNROLL
    for (int j = 0; j < kSize; ++j) {
      if (begin + j >= 0 && begin + j < lines.length) to[j] = source[j];
    }
  });
}

// f(t, channel, count) in every thread t that has sums of `count` channels from `channel` on.
template <typename Block, typename F>
FI_HD void each_holder(Block& block, int channels, int width, const F& f) {
  block.each_thread([&](int t) {
    const int channel = t / kLanes * kChannelsAtOnce, count = channels - channel;
    if (t % kLanes >= width || count <= 0) return;
    f(t, channel, count < kChannelsAtOnce ? count : kChannelsAtOnce);
  });
}

// value(t, i) to the map of channel first + t / kLanes * kChannelsAtOnce + i at the lane t % kLanes
// of a tile, unless maps are left out. All threads come here, and nobody needs `room` any more.
template <typename T, typename Block, typename Value>
FI_HD void store_tile(Block& block, const Room<T>& room, const Maps<T>& maps, const Sizes& sizes,
                      int64_t n, int64_t tile, int64_t first, const Value& value) {
  if (!maps.data) return;
  const int64_t below = sizes.channels - first, left = sizes.positions - tile * kLanes;
  const int channels = static_cast<int>(below < kWide ? below : kWide);
  const int width = static_cast<int>(left < kLanes ? left : kLanes);
  const auto lines = lines_of(maps, n, first, tile, channels, width, width == sizes.positions);
  if (maps.position_stride != 1 || lines.size() > room.size) {
    each_holder(block, channels, width, [&](int t, int channel, int count) {
      store_channels<kChannelsAtOnce>(maps, n, first + channel, count, tile * kLanes + t % kLanes,
                                      [&](int i) { return value(t, i); });
    });
    return;
  }
  each_holder(block, channels, width, [&](int t, int channel, int count) {
    FI_UNROLL
    for (int i = 0; i < kChannelsAtOnce; ++i) {
      if (i >= count) break;
      room.data[lines.place(channel + i, t % kLanes)] = static_cast<T>(value(t, i));
    }
  });
  store_lines(block, static_cast<const T*>(room.data), lines);
}

}  // namespace fastinterp
