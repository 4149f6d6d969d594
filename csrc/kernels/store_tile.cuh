// Stores the sums of a block to global memory, through shared memory: 16 bytes at a time.
#pragma once

#include "products.cuh"

namespace fastinterp {

// A part of a block's shared memory that store_tile may overwrite, aligned to 16 bytes.
template <typename T>
struct SharedBuffer {
  T* data;
  int size;  // in elements
};

// The shared memory in which the products of products.cuh hold weights, once these are used.
template <typename T>
FI_HD SharedBuffer<T> shared_buffer(AccType<T>* shared) {
  return {reinterpret_cast<T*>(shared),
          kSharedAccumulators * static_cast<int>(sizeof(AccType<T>) / sizeof(T))};
}

// One tile of up to kChannelTile channels as lines without gaps: one line per channel or, if a map
// is a single tile and maps follow each other without gaps, one line for all channels. A line has
// the same offset from a 16-byte boundary in shared and in global memory, so that Chunks can be
// copied.
template <typename T>
struct Lines {
  T* to;           // where the first line begins
  int64_t stride;  // from one line to the next
  int count, length;
  int pitch;        // from one channel to the next in shared memory
  int slack;        // the largest offset of a line from a 16-byte boundary
  int shift, step;  // the offset of the first line, and what each line adds to it

  FI_HD int offset(int line) const { return (shift + line * step) & (Chunk<T>::kSize - 1); }
  FI_HD int place(int channel, int tile_position) const {
    return channel * pitch + offset(channel) + tile_position;
  }
  FI_HD int size() const { return count > 1 ? count * pitch : slack + length; }
};

template <typename T>
FI_HD Lines<T> lines_of(const Maps<T>& maps, int64_t n, int64_t first, int64_t tile, int channels,
                        int width, bool whole) {
  constexpr int kSize = Chunk<T>::kSize;
  T* to = &maps.at(n, first, tile * kTilePositions);
  const auto address = reinterpret_cast<uintptr_t>(to);
  const int shift = static_cast<int>(address % sizeof(Chunk<T>) / sizeof(T));
  if (whole && maps.channel_stride == width) {
    return {to, 0, 1, channels * width, width, shift, shift, 0};
  }
  const int step = static_cast<int>(maps.channel_stride % kSize);
  const int slack = shift == 0 && step == 0 ? 0 : kSize - 1;
  const int pitch = slack == 0 ? kTilePositions : kTilePositions + kSize;
  return {to, maps.channel_stride, channels, width, pitch, slack, shift, step};
}

// Copies lines from shared to global memory. Neighbouring threads copy neighbouring Chunks; only
// the ends of a line are copied element by element.
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

// Calls f(t, channel, count) in every thread t that holds sums of `count` channels from `channel`
// on.
template <typename Block, typename F>
FI_HD void each_holder(Block& block, int channels, int width, const F& f) {
  block.each_thread([&](int t) {
    const int channel = t / kTilePositions * kThreadChannels, count = channels - channel;
    if (t % kTilePositions >= width || count <= 0) return;
    f(t, channel, count < kThreadChannels ? count : kThreadChannels);
  });
}

// Stores value(t, i) to the map of channel first + t / kTilePositions * kThreadChannels + i, at
// position t % kTilePositions of the tile; does nothing if maps.data is null. All threads call it.
// It overwrites `buffer`.
template <typename T, typename Block, typename Value>
FI_HD void store_tile(Block& block, const SharedBuffer<T>& buffer, const Maps<T>& maps,
                      const Sizes& sizes, int64_t n, int64_t tile, int64_t first,
                      const Value& value) {
  if (!maps.data) return;
  const int64_t below = sizes.channels - first, left = sizes.positions - tile * kTilePositions;
  const int channels = static_cast<int>(below < kChannelTile ? below : kChannelTile);
  const int width = static_cast<int>(left < kTilePositions ? left : kTilePositions);
  const auto lines = lines_of(maps, n, first, tile, channels, width, width == sizes.positions);
  if (maps.position_stride != 1 || lines.size() > buffer.size) {
    each_holder(block, channels, width, [&](int t, int channel, int count) {
      store_channels<kThreadChannels>(maps, n, first + channel, count,
                                      tile * kTilePositions + t % kTilePositions,
                                      [&](int i) { return value(t, i); });
    });
    return;
  }
  each_holder(block, channels, width, [&](int t, int channel, int count) {
    FI_UNROLL
    for (int i = 0; i < kThreadChannels; ++i) {
      if (i >= count) break;
      buffer.data[lines.place(channel + i, t % kTilePositions)] = static_cast<T>(value(t, i));
    }
  });
  store_lines(block, static_cast<const T*>(buffer.data), lines);
}

}  // namespace fastinterp
