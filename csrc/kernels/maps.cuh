// A batch of feature maps, in any memory layout with a constant stride between positions.
#pragma once

#include "block.cuh"

namespace fastinterp {

// Half types and float32 accumulate in float32, float64 in float64.
template <typename T>
struct AccTypeOf {
  using Type = float;
};
template <>
struct AccTypeOf<double> {
  using Type = double;
};
template <typename T>
using AccType = typename AccTypeOf<T>::Type;

template <typename T>
struct Maps {
  T* data;  // [N, K, u]; null for an output that is not wanted
  int64_t image_stride;
  int64_t channel_stride;
  int64_t position_stride;

  FI_HD T& at(int64_t n, int64_t k, int64_t p) const {
    return data[n * image_stride + k * channel_stride + p * position_stride];
  }
};

// Width elements, read or written in one access.
template <typename T, int Width>
struct alignas(sizeof(T) * Width) Pack {
  T values[Width];
};

// 16 bytes: the widest load or store of a thread.
template <typename T>
struct alignas(16) Chunk {
  static constexpr int kSize = 16 / static_cast<int>(sizeof(T));
  T values[kSize];
};

// Whether `data` may be read and written as Chunks.
template <typename T>
FI_HD bool in_chunks(const T* data) {
  return reinterpret_cast<uintptr_t>(data) % sizeof(Chunk<T>) == 0;
}

// Stores value(i) to channel k + i, for i < count <= Most.
template <int Most, typename T, typename Value>
FI_HD void store_channels(const Maps<T>& maps, int64_t n, int64_t k, int count, int64_t p,
                          const Value& value) {
  constexpr int kSize = Chunk<T>::kSize;
  T* to = &maps.at(n, k, p);
  if (maps.channel_stride == 1 && count == Most && in_chunks(to)) {
    FI_UNROLL
    for (int i = 0; i < Most; i += kSize) {
      Chunk<T> chunk;
      FI_UNROLL
      for (int j = 0; j < kSize; ++j) chunk.values[j] = static_cast<T>(value(i + j));
      *reinterpret_cast<Chunk<T>*>(to + i) = chunk;
    }
    return;
  }
  FI_UNROLL
  for (int i = 0; i < Most; ++i) {
    if (i < count) to[i * maps.channel_stride] = static_cast<T>(value(i));
  }
}

struct Sizes {
  int64_t images;     // N
  int64_t channels;   // K
  int64_t classes;    // C
  int64_t positions;  // u
};

}  // namespace fastinterp
