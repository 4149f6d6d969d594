// What the discrepancy's forward pass leaves behind for its backward pass, as its schema numbers
// it.
#pragma once

#include <cstdint>

namespace fastinterp {

constexpr int64_t kNothing = 0;
constexpr int64_t kGradient = 1;  // dD/dA', complete but for the gradient by D
// The signs of the maps, int8 [N, C, u], on a CPU, where making them again costs a product. A GPU
// leaves nothing and makes them again.
constexpr int64_t kSigns = 2;

}  // namespace fastinterp
