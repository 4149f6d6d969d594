// What the forward pass of the discrepancy saves for its backward pass: `save` of its schema.
#pragma once

#include <cstdint>

namespace fastinterp {

constexpr int64_t kSaveNothing = 0;
constexpr int64_t kSaveGradient = 1;  // dD/dA' for an upstream gradient of ones
// On a CPU the signs of the maps, int8 [N, C, u]. A GPU saves nothing and computes them again.
constexpr int64_t kSaveSigns = 2;

}  // namespace fastinterp
