// The signs of the maps, two bits each, 16 classes in a word.
#pragma once

#include "products.cuh"

namespace fastinterp {

static_assert(kClassTile <= 16,
              "one word holds the signs of a class_tile of classes at one position");

struct Signs {
  uint32_t* words;  // [class tiles, positions]
  int64_t stride;   // from one class tile to the next

  FI_HD uint32_t& word(int64_t class_tile, int64_t p) const {
    return words[class_tile * stride + p];
  }

  FI_HD int at(int64_t c, int64_t p) const {
    const auto class_tile = static_cast<uint64_t>(c) / kClassTile,
               place = static_cast<uint64_t>(c) % kClassTile;
    return static_cast<int>(word(static_cast<int64_t>(class_tile), p) >> (2 * place) & 3u) - 1;
  }

  // A NaN counts as zero.
  template <typename A>
  FI_HD static uint32_t bits(A map, int place) {
    return static_cast<uint32_t>((map > 0) - (map < 0) + 1) << (2 * place);
  }
};

}  // namespace fastinterp
