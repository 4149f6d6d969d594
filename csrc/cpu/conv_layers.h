// The layers of a stack of convolutions: shapes of maps, packed weights, and what leads back.
#pragma once

#include <c10/util/BFloat16.h>

#include <algorithm>
#include <vector>

#include "conv_stack.h"
#include "vector/taps.h"

namespace fastinterp::cpu {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline float as(float v, float) { return v; }
inline Bf16 as(float v, Bf16) { return {c10::BFloat16(v).x}; }

// Maps of one image, [rows, left + columns + right, channels].
struct Shape {
  int64_t rows, columns, channels;
  int64_t left = 0, right = 0;

  int64_t pitch() const { return (left + columns + right) * channels; }
  // One number more than there are: products of pairs may read it, for nothing.
  int64_t count() const { return rows * pitch() + 1; }
  int64_t at(int64_t row, int64_t column) const {
    return row * pitch() + (left + column) * channels;
  }
};

template <typename T>
void clear_sides(T* map, const Shape& s) {
  for (int64_t i = 0; i < s.rows; ++i) {
    std::fill_n(map + i * s.pitch(), s.left * s.channels, T{});
    std::fill_n(map + s.at(i, s.columns), s.right * s.channels, T{});
  }
  map[s.count() - 1] = T{};
}

// Weights w(lane, t, b, c) of `taps` rows of `columns` taps over `channels`, for a table's product.
template <typename T>
class Packed {
 public:
  template <typename Weight>
  Packed(const TapLoops<T>& loops, int64_t lanes, int64_t taps, int64_t columns, int64_t channels,
         const Weight& weight)
      : loops_(loops), lanes_(lanes), taps_(columns > 0 ? taps : 0) {
    const int64_t used = columns * channels, p = loops.together;
    inner_ = ceil_div(used, p) * p;
    vectors_ = ceil_div(lanes, loops.width);
    data_.resize(taps_ * inner_ * vectors_ * loops.width);
    T* to = data_.data();
    for (int64_t v = 0; v < vectors_; v += group(v)) {
      for (int64_t t = 0; t < taps_; ++t) {
        for (int64_t j = 0; j < inner_; j += p) {
          for (int64_t lane = v * loops.width; lane < (v + group(v)) * loops.width; ++lane) {
            for (int64_t i = j; i < j + p; ++i, ++to) {
              const bool real = lane < lanes && i < used;
              *to = as(real ? weight(lane, t, i / channels, i % channels) : 0.0f, T{});
            }
          }
        }
      }
    }
  }

  int64_t padded_lanes() const { return vectors_ * loops_.width; }
  int64_t lanes() const { return lanes_; }
  int64_t taps() const { return taps_; }

  // done(sums, r, rows, lane, lanes) for products of rows r ... r + rows with rows of the kernel
  // `first` ... `last`: in + r * step + t * tap_step is what the t-th sees. Sums lie ld apart.
  template <typename Done>
  void multiply(float* sums, const T* in, int64_t step, int64_t tap_step, int64_t first,
                int64_t last, int64_t rows, const Done& done) const {
    const T* from = data_.data();
    for (int64_t v = 0; v < vectors_; v += group(v)) {
      const int64_t wide = group(v) * loops_.width, lane = v * loops_.width;
      const T* const packed = from + first * inner_ * wide;
      const int64_t blocks = ceil_div(rows, loops_.most_rows);
      for (int64_t r = 0, block = 0; block < blocks; ++block) {
        const int64_t height = (rows - r + blocks - block - 1) / (blocks - block);
        loops_.product(sums, wide, in + r * step, step, tap_step, packed, last - first, inner_,
                       height, group(v));
        done(sums, wide, r, height, lane, std::min(wide, lanes_ - lane));
        r += height;
      }
      from += taps_ * inner_ * wide;
    }
  }

 private:
  // Vectors that are multiplied at a time, from the v-th on.
  int64_t group(int64_t v) const { return std::min<int64_t>(2, vectors_ - v); }

  const TapLoops<T>& loops_;
  int64_t lanes_, taps_, inner_ = 0, vectors_ = 0;
  std::vector<T> data_;
};

// Along one axis, the positions i of a convolution's input with (i + before) % stride == remainder,
// and what they see of its output.
struct Phase {
  Phase(int64_t size, int64_t kernel, int64_t stride, int64_t before, int64_t remainder)
      : taps(std::max<int64_t>(0, ceil_div(kernel - remainder, stride))),
        first(((remainder - before) % stride + stride) % stride),
        count(std::max<int64_t>(0, ceil_div(size - first, stride))),
        origin((first + before - remainder) / stride - (taps - 1)) {}

  int64_t taps;    // of the kernel: remainder, remainder + stride, ...
  int64_t first;   // the first position
  int64_t count;   // of positions
  int64_t origin;  // the output that the first position's first tap sees; one more for each next
};

template <typename T>
class Layer {
 public:
  Layer(const TapLoops<T>& loops, const Convolution& c, int64_t height, int64_t width)
      : stride(c.stride),
        top(c.top),
        in{height, width, c.weight.size(1), c.left, c.right},
        out{(height + c.top + c.bottom - c.weight.size(2)) / c.stride + 1,
            (width + c.left + c.right - c.weight.size(3)) / c.stride + 1, c.weight.size(0)},
        pooled{ceil_div(out.rows, c.pool), ceil_div(out.columns, c.pool), out.channels},
        pool(c.pool),
        kernel_rows(c.weight.size(2)),
        kernel_columns(c.weight.size(3)),
        forward(loops, out.channels, kernel_rows, kernel_columns, in.channels,
                [w = c.weight.accessor<float, 4>()](auto o, auto a, auto b, auto i) {
                  return w[o][i][a][b];
                }),
        bias(forward.padded_lanes()) {
    std::copy_n(c.bias.data_ptr<float>(), out.channels, bias.data());
  }

  // Sums that a row of windows chooses from.
  int64_t unpooled_row() const { return pool * out.columns * out.channels; }

  // The phases that lead back to the input, and what their reading asks of the output's sides.
  void prepare_backward(const TapLoops<T>& loops, const Convolution& c) {
    const auto w = c.weight.accessor<float, 4>();
    for (int64_t r = 0; r < stride; ++r) {
      rows.emplace_back(in.rows, kernel_rows, stride, c.top, r);
      columns.emplace_back(in.columns, kernel_columns, stride, c.left, r);
      const Phase& last = columns.back();
      out.left = std::max(out.left, -last.origin);
      out.right = std::max(out.right, last.origin + last.count + last.taps - 1 - out.columns);
    }
    for (int64_t a = 0; a < stride; ++a) {
      for (int64_t b = 0; b < stride; ++b) {
        const auto tap = [s = stride](const Phase& p, int64_t remainder, int64_t t) {
          return s * (p.taps - 1 - t) + remainder;
        };
        backward.emplace_back(loops, in.channels, rows[a].taps, columns[b].taps, out.channels,
                              [&](auto i, auto t, auto u, auto o) {
                                return w[o][i][tap(rows[a], a, t)][tap(columns[b], b, u)];
                              });
      }
    }
  }

  // Instead, at the image: lanes are the taps (a, b, i) of the kernel.
  void prepare_scatter(const TapLoops<T>& loops, const Convolution& c) {
    const auto w = c.weight.accessor<float, 4>();
    const int64_t run = kernel_columns * in.channels;
    backward.emplace_back(loops, kernel_rows * run, 1, 1, out.channels,
                          [&](auto lane, auto, auto, auto o) {
                            const auto rest = lane % run;
                            return w[o][rest % in.channels][lane / run][rest / in.channels];
                          });
  }

  int64_t stride, top;
  Shape in, out;  // `in` with the forward pass's sides, `out` with the backward pass's
  Shape pooled;   // what the next convolution sees
  int64_t pool;
  // Where an image's maps `in` and the places of what was pooled are saved, in bytes.
  int64_t map_at = 0, places_at = 0;
  int64_t kernel_rows, kernel_columns;
  Packed<T> forward;
  std::vector<float> bias;
  std::vector<Phase> rows, columns;  // by remainder
  std::vector<Packed<T>> backward;   // [stride, stride], or one for the scatter
};

}  // namespace fastinterp::cpu
