// The loops of a convolution that one image at a time goes through, as a table of functions for
// each instruction set and type, like `Primitives`.
#pragma once

#include <cstdint>

namespace fastinterp::cpu {

struct Bf16 {
  uint16_t bits;
};

// Maps hold T, their channels side by side. Products are summed in float.
template <typename T>
struct TapLoops {
  int64_t width;      // sums in a vector register
  int64_t together;   // neighbours along `inner` that one instruction multiplies and adds
  int64_t most_rows;  // of one product

  // sums[r, :] = sum over t < taps, j < inner of in[r * step + t * tap_step + j] w[t, j, :], for
  // `vectors` (1 or 2) vectors. w is packed [taps, inner / together, vectors * width, together].
  void (*product)(float* sums, int64_t ld, const T* in, int64_t step, int64_t tap_step,
                  const T* packed, int64_t taps, int64_t inner, int64_t rows, int64_t vectors);

  // out[r, :] = max(sums[r, :] + bias, 0); rows of out lie `step` apart.
  void (*activate)(T* out, int64_t step, const float* sums, int64_t ld, const float* bias,
                   int64_t rows, int64_t lanes);

  // out[r, :] = sums[r, :] where seen[r, :] > 0, else 0; rows of both lie `step` apart.
  void (*gate)(T* out, const T* seen, int64_t out_step, int64_t seen_step, const float* sums,
               int64_t ld, int64_t rows, int64_t lanes);

  void (*narrow)(T* out, const float* in, int64_t count);

  // One row of windows: out[x, :] are the largest of `rows` rows of `columns` sums, `size` columns
  // to a window, and places[x, :] say which they were (y * size + x in the window): of equal ones
  // the first. A NaN is the largest.
  void (*pool)(float* out, uint8_t* places, const float* sums, int64_t rows, int64_t columns,
               int64_t size, int64_t lanes);

  // The way back to row y of the windows: out[x, :] = grad where the place is that of x, else 0.
  void (*unpool)(T* out, const T* grad, const uint8_t* places, int64_t y, int64_t columns,
                 int64_t size, int64_t lanes);
};

// Null where the processor, or ATEN_CPU_CAPABILITY, does without: for Bf16 on most.
template <typename T>
const TapLoops<T>* tap_loops();

}  // namespace fastinterp::cpu
