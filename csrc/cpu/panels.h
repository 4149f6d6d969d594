// One image at a time through panels: the CPU side's way of keeping everything in cache.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <memory>
#include <new>

#include "../kernels/maps.h"
#include "vector/primitives.h"

namespace fastinterp::cpu {

// Aligned scratch memory of one thread.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : data_(static_cast<T*>(::operator new(std::max<int64_t>(count, 1) * sizeof(T), kAlign))) {}
  T* get() const { return data_.get(); }

 private:
  static constexpr std::align_val_t kAlign{64};
  struct Free {
    void operator()(T* p) const { ::operator delete(p, kAlign); }
  };
  std::unique_ptr<T, Free> data_;
};

// How the positions of one image are cut into tiles, so that a staged [K, tile] panel stays in the
// second-level cache.
template <typename T>
struct Tiling {
  explicit Tiling(const Sizes& sizes) : positions(sizes.positions) {
    constexpr int64_t kPanelBytes = 256 * 1024;
    const int64_t width = primitives<T>().width;
    const int64_t rows = std::max(sizes.channels, sizes.classes);
    const int64_t fitting = kPanelBytes / static_cast<int64_t>(sizeof(T)) / rows;
    const int64_t whole = round_up(positions, width);
    ld = std::min(whole, std::max(2 * width, fitting / (2 * width) * (2 * width)));
    count = (positions + ld - 1) / ld;
  }
  int64_t begin(int64_t tile) const { return tile * ld; }
  int64_t columns(int64_t tile) const { return std::min(ld, positions - begin(tile)); }
  static int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

  int64_t positions;
  int64_t ld;     // columns of a panel
  int64_t count;  // tiles in an image
};

template <typename T>
Strides strides_of(const Maps<T>& maps) {
  return {maps.channel_stride, maps.position_stride};
}

template <typename T>
T* tile_of(const Maps<T>& maps, int64_t n, int64_t first_position) {
  return &maps.at(n, 0, first_position);
}

// Gradients by the weight are summed over images in a fixed number of parts, so that the result
// does not depend on how many threads there are.
inline int64_t parts_of(const Sizes& sizes) {
  constexpr int64_t kMostParts = 16, kMostBytes = int64_t{64} << 20;
  const int64_t bytes = sizes.channels * sizes.classes * static_cast<int64_t>(sizeof(double));
  return std::max<int64_t>(1, std::min({sizes.images, kMostParts, kMostBytes / bytes}));
}

// Half types have no wide arithmetic on most CPUs: they are computed in float32.
inline at::ScalarType compute_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace fastinterp::cpu
