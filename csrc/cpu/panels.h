// One image at a time through panels: the CPU side's way of keeping everything in cache.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <vector>

#include "../kernels/maps.cuh"
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

// out [C, K] += scale * a b^T, tile by tile: a [C, positions] is read through strides, b is staged
// with its channels side by side, so that vectors run along them and nothing is summed across one.
// Sums over some hundred positions are kept in T; these come together in double.
template <typename T>
class Correlation {
 public:
  Correlation(const Sizes& sizes, const Tiling<T>& tiling, double scale)
      : classes_(sizes.classes),
        channels_(sizes.channels),
        ld_(Tiling<T>::round_up(sizes.channels, primitives<T>().width)),
        scale_(scale),
        staged_(tiling.ld * ld_),
        product_(sizes.classes * ld_) {}

  // b = source - minus (or source, where minus is null), `columns` positions of it.
  void add(double* out, const T* a, Strides a_at, const T* source, Strides at, const T* minus,
           Strides minus_at, int64_t columns) {
    if (summed_ + columns > kMostSummed) flush(out);
    const auto& vector = primitives<T>();
    const auto turned = [](Strides s) { return Strides{s.column, s.row}; };
    vector.load(staged_.get(), ld_, source, turned(at), minus, turned(minus_at), columns, channels_,
                nullptr);
    vector.product(product_.get(), ld_, a, a_at, staged_.get(), ld_, classes_, columns, ld_,
                   /*add=*/summed_ > 0);
    summed_ += columns;
  }

  // What is not in `out` yet. Due before another `out` is added to.
  void flush(double* out) {
    if (summed_ == 0) return;
    for (int64_t c = 0; c < classes_; ++c) {
      double* const to = out + c * channels_;
      const T* const from = product_.get() + c * ld_;
      for (int64_t k = 0; k < channels_; ++k) to[k] += scale_ * from[k];
    }
    summed_ = 0;
  }

 private:
  static constexpr int64_t kMostSummed = 512;  // positions

  int64_t classes_, channels_, ld_;
  double scale_;
  int64_t summed_ = 0;  // positions in product_
  Scratch<T> staged_;   // [positions of a tile, K]
  Scratch<T> product_;  // [C, K]
};

// body(next) on each thread; next() is an index below `count`, or `count` when all have been taken.
// A thread takes its own share first, in order: from one call to the next it finds in its caches
// what it wrote there. Then it helps the others out: a thread that wakes late, or shares its core,
// holds nobody up. For work whose results do not depend on who did it.
template <typename Body>
void share_out(int64_t count, const Body& body) {
  struct alignas(64) Share {
    std::atomic<int64_t> next;
    int64_t end;
  };
  const int64_t threads = std::min<int64_t>(count, at::get_num_threads());
  std::vector<Share> shares(threads);
  for (int64_t t = 0; t < threads; ++t) {
    shares[t].next = count * t / threads;
    shares[t].end = count * (t + 1) / threads;
  }
  at::parallel_for(0, threads, 1, [&](int64_t own, int64_t) {
    int64_t helped = 0;
    body([&] {
      for (; helped < threads; ++helped) {
        Share& share = shares[(own + helped) % threads];
        const int64_t n = share.next.fetch_add(1, std::memory_order_relaxed);
        if (n < share.end) return n;
      }
      return count;
    });
  });
}

// Gradients by the weight are summed over images in a fixed number of parts, so that the result
// does not depend on how many threads there are.
inline int64_t parts_of(const Sizes& sizes) {
  constexpr int64_t kMaxParts = 16, kMaxBytes = int64_t{64} << 20;
  const int64_t bytes = sizes.channels * sizes.classes * static_cast<int64_t>(sizeof(double));
  return std::max<int64_t>(1, std::min({sizes.images, kMaxParts, kMaxBytes / bytes}));
}

// Half types have no wide arithmetic on most CPUs: they are computed in float32.
inline at::ScalarType compute_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// tensor.to(type), which costs something even where there is nothing to do.
inline at::Tensor as_type(const at::Tensor& tensor, at::ScalarType type) {
  return tensor.scalar_type() == type ? tensor : tensor.to(type);
}

}  // namespace fastinterp::cpu
