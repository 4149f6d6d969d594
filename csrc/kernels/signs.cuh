// Signs of the maps, two bits each.
#pragma once

#include "products.cuh"

namespace fastinterp {

static_assert(kGroup <= 16, "one word holds the signs of a group of classes at one position");

struct Signs {
  uint32_t* words;  // [groups, positions]
  int64_t stride;   // from one group to the next

  FI_HD uint32_t& word(int64_t group, int64_t p) const { return words[group * stride + p]; }

  FI_HD int at(int64_t c, int64_t p) const {
    const auto group = static_cast<uint64_t>(c) / kGroup, place = static_cast<uint64_t>(c) % kGroup;
    return static_cast<int>(word(static_cast<int64_t>(group), p) >> (2 * place) & 3u) - 1;
  }

  // A NaN counts as zero.
  template <typename A>
  FI_HD static uint32_t bits(A map, int place) {
    return static_cast<uint32_t>((map > 0) - (map < 0) + 1) << (2 * place);
  }
};

}  // namespace fastinterp
