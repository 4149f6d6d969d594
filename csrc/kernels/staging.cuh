// Copies one tile of feature maps from global to shared memory.
#pragma once

#include "products.cuh"

namespace fastinterp {

// Half types are padded to 16 x 16 tiles for tensor cores. The pitch avoids bank conflicts, whether
// a warp reads along a row or down a column.
template <typename T>
FI_HD int staged_rows(int rows) {
  return sizeof(T) == 2 ? (rows + 15) / 16 * 16 : rows;
}
template <typename T>
FI_HD int staged_pitch(int length) {
  return sizeof(T) == 2 ? (length + 15) / 16 * 16 + 8 : length | 1;
}

// In the order of global memory: a row of positions for each channel or, for channels_last, a row
// of channels for each position.
template <typename T>
struct StagedTile {
  T* data;
  int channel_stride, position_stride;

  FI_HD T& at(int64_t k, int64_t tile_position) const {
    return data[static_cast<int>(k) * channel_stride +
                static_cast<int>(tile_position) * position_stride];
  }
};

template <typename T>
FI_HD bool channels_adjoin(const Maps<T>& maps) {
  return maps.channel_stride == 1 && maps.position_stride != 1;
}

// The number of elements of a staged tile.
template <typename T>
FI_HD int64_t staged_size(const Maps<T>& maps, const Sizes& sizes) {
  const int width =
      static_cast<int>(sizes.positions < kTilePositions ? sizes.positions : kTilePositions);
  const int channels = static_cast<int>(sizes.channels);
  return channels_adjoin(maps) ? int64_t{staged_rows<T>(width)} * staged_pitch<T>(channels)
                               : int64_t{staged_rows<T>(channels)} * staged_pitch<T>(width);
}

// Copies `lines` runs of `span` elements, `stride` apart, to rows of `length` elements, `pitch`
// apart.
template <typename T, typename Block>
FI_HD void stage_chunks(Block& block, const T* from, int64_t stride, int lines, int span,
                        int length, int pitch, T* to) {
  constexpr int kSize = Chunk<T>::kSize;
  const int each = (span + kSize - 1) / kSize, count = lines * each, threads = block.threads();
  block.each_thread([&](int t) {
    for (int first = t; first < count; first += kPrefetch * threads) {
      Chunk<T> chunks[kPrefetch] = {};
      FI_UNROLL
      for (int a = 0; a < kPrefetch; ++a) {
        const int i = first + a * threads, begin = i % each * kSize;
        if (i >= count) continue;
        const T* source = from + i / each * stride + begin;
        if (begin + kSize <= span) {
          chunks[a] = *reinterpret_cast<const Chunk<T>*>(source);
        } else {
          FI_UNROLL
          for (int j = 0; j < kSize; ++j) {
            if (begin + j < span) chunks[a].values[j] = source[j];
          }
        }
      }
      FI_UNROLL
      for (int a = 0; a < kPrefetch; ++a) {
        const int i = first + a * threads, begin = i % each * kSize;
        if (i >= count) continue;
        int row = i / each + begin / length, column = begin % length;
        FI_UNROLL
        for (int j = 0; j < kSize; ++j) {
          if (begin + j < span) to[row * pitch + column] = chunks[a].values[j];
          if (++column == length) column = 0, ++row;
        }
      }
    }
  });
}

template <typename T, typename Block>
FI_HD StagedTile<T> stage(Block& block, const Maps<T>& maps, const Sizes& sizes, int64_t n,
                          int64_t tile, T* to) {
  const bool by_channels = channels_adjoin(maps);
  const int64_t left = sizes.positions - tile * kTilePositions;
  const int count = static_cast<int>(left < kTilePositions ? left : kTilePositions);
  const int width =
      static_cast<int>(sizes.positions < kTilePositions ? sizes.positions : kTilePositions);
  const int channels = static_cast<int>(sizes.channels);
  const int rows = by_channels ? count : channels, length = by_channels ? channels : count;
  const int pitch = staged_pitch<T>(by_channels ? channels : width);
  const int64_t stride = by_channels ? maps.position_stride : maps.channel_stride;
  const int64_t step = by_channels ? 1 : maps.position_stride;
  const T* from = &maps.at(n, 0, tile * kTilePositions);
  // Rows without gaps are copied as one long row, in which a Chunk may span two rows.
  const bool dense = step == 1 && stride == length;
  const int lines = dense ? 1 : rows, span = dense ? rows * length : length;
  constexpr int kSize = Chunk<T>::kSize;
  if (step == 1 && in_chunks(from) && (dense || stride % kSize == 0)) {
    stage_chunks(block, from, stride, lines, span, length, pitch, to);
  } else {
    block.each(rows * length, [&](int64_t i) {
      const int row = static_cast<int>(i) / length, column = static_cast<int>(i) % length;
      to[row * pitch + column] = from[row * stride + column * step];
    });
  }
  const StagedTile<T> staged{to, by_channels ? 1 : pitch, by_channels ? pitch : 1};
  // Tensor cores multiply the padding by zero weights; a NaN in the padding would give NaN.
  const int wide = staged_rows<T>(width);
  block.each((staged_rows<T>(channels) - channels) * wide,
             [&](int64_t i) { staged.at(channels + i / wide, i % wide) = T(0); });
  return staged;
}

}  // namespace fastinterp
