// A batch of feature maps in any memory layout whose positions form one regular row.
#pragma once

#include "block.h"

namespace fastinterp {

// Half types and float32 accumulate in float32, float64 in float64.
template <typename T>
struct Accumulate {
  using Type = float;
};
template <>
struct Accumulate<double> {
  using Type = double;
};
template <typename T>
using Acc = typename Accumulate<T>::Type;

template <typename T>
struct Maps {
  T* data;  // [N, K, u], or null where a kernel should leave it out
  int64_t image_stride;
  int64_t channel_stride;
  int64_t position_stride;

  FI_HD T& at(int64_t n, int64_t k, int64_t p) const {
    return data[n * image_stride + k * channel_stride + p * position_stride];
  }
};

struct Sizes {
  int64_t images;     // N
  int64_t channels;   // K
  int64_t classes;    // C
  int64_t positions;  // u
};

}  // namespace fastinterp
