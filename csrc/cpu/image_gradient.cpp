// The gradient of a convolution at the images that it read, on the CPU.
//
// A tap of the kernel sends the image one number for each position of the output: the product
// [in * k * k, out] x [out, positions], in which vectors run along positions. A grey image has one
// channel, and along channels is how a library's vectors run. What the taps sent is then added up
// row by row in a padded image that stays in cache.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>

#include "../checks.h"
#include "panels.h"

namespace fastinterp::cpu {
namespace {

struct Geometry {
  int64_t channels, height, width;  // of an image
  int64_t filters, rows, columns;   // of the output
  int64_t kernel_rows, kernel_columns, stride;
  int64_t top, left;  // padding

  int64_t taps() const { return channels * kernel_rows * kernel_columns; }
  // What the windows cover, from the padding's corner on.
  int64_t covered_rows() const { return (rows - 1) * stride + kernel_rows; }
  int64_t covered_columns() const { return (columns - 1) * stride + kernel_columns; }
};

// What the windows of one image cover. The columns of a row that lie `stride` apart are side by
// side, so that a tap's row of numbers is added to one stretch of memory.
template <typename T>
class Covered {
 public:
  explicit Covered(const Geometry& g)
      : g_(g),
        phase_((g.covered_columns() + g.stride - 1) / g.stride),
        count_(g.channels * g.covered_rows() * g.stride * phase_),
        sums_(count_) {}

  void clear() { std::fill_n(sums_.get(), count_, T(0)); }

  // sent [in * k * k, rows * columns], its rows ld apart: of `rows` rows of the output from
  // `first` on.
  void add(const T* sent, int64_t ld, int64_t first, int64_t rows) {
    const int64_t kernel = g_.kernel_rows * g_.kernel_columns;
    for (int64_t tap = 0; tap < g_.taps(); ++tap, sent += ld) {
      const int64_t c = tap / kernel, a = tap % kernel / g_.kernel_columns;
      const int64_t b = tap % g_.kernel_columns;
      for (int64_t i = 0; i < rows; ++i) {
        T* __restrict__ const to =
            row(c, (first + i) * g_.stride + a, b % g_.stride) + b / g_.stride;
        const T* __restrict__ const from = sent + i * g_.columns;
        for (int64_t j = 0; j < g_.columns; ++j) to[j] += from[j];
      }
    }
  }

  // The images without their padding; what no window reached gets zeros.
  void crop(T* image) const {
    for (int64_t c = 0; c < g_.channels; ++c) {
      for (int64_t y = g_.top; y < g_.top + g_.height; ++y, image += g_.width) {
        std::fill_n(image, g_.width, T(0));
        if (y >= g_.covered_rows()) continue;
        for (int64_t r = 0; r < g_.stride; ++r) crop_phase(image, row(c, y, r), r);
      }
    }
  }

 private:
  T* row(int64_t c, int64_t y, int64_t r) const {
    return sums_.get() + ((c * g_.covered_rows() + y) * g_.stride + r) * phase_;
  }

  // Columns r, r + stride, ... of what is covered are `left` further left in the image.
  void crop_phase(T* image, const T* from, int64_t r) const {
    const int64_t s = g_.stride;
    const int64_t begin = std::max<int64_t>(0, (g_.left - r + s - 1) / s);
    const int64_t most = (g_.left + g_.width - r + s - 1) / s;
    const int64_t end = std::min(most, (g_.covered_columns() - r + s - 1) / s);
    for (int64_t m = begin; m < end; ++m) image[m * s + r - g_.left] = from[m];
  }

  const Geometry& g_;
  int64_t phase_, count_;
  Scratch<T> sums_;
};

// Rows of the output that are multiplied at a time: their panels stay in the second-level cache.
template <typename T>
int64_t rows_at_a_time(const Geometry& g) {
  constexpr int64_t kBytes = 256 * 1024;
  const int64_t row = (g.filters + g.taps()) * g.columns * static_cast<int64_t>(sizeof(T));
  return std::clamp<int64_t>(kBytes / row, 1, g.rows);
}

template <typename T>
void compute(T* images, const at::Tensor& grad, const T* kernel, const Geometry& g) {
  const auto& vector = primitives<T>();
  const auto maps = maps_of<T>(grad);
  const int64_t tile = rows_at_a_time<T>(g);
  const int64_t ld = Tiling<T>::round_up(tile * g.columns, vector.width);
  share_out(grad.size(0), [&](const auto& next) {
    const Scratch<T> panel(g.filters * ld), sent(g.taps() * ld);
    Covered<T> covered(g);
    for (int64_t n = next(); n < grad.size(0); n = next()) {
      covered.clear();
      for (int64_t i = 0; i < g.rows; i += tile) {
        const int64_t rows = std::min(tile, g.rows - i), count = rows * g.columns;
        vector.load(panel.get(), ld, tile_of(maps, n, i * g.columns), strides_of(maps), nullptr, {},
                    g.filters, count, nullptr);
        vector.product(sent.get(), ld, kernel, Strides{1, g.taps()}, panel.get(), ld, g.taps(),
                       g.filters, count, /*add=*/false);
        covered.add(sent.get(), ld, i, rows);
      }
      covered.crop(images + n * g.channels * g.height * g.width);
    }
  });
}

Geometry geometry_of(const at::Tensor& grad, const at::Tensor& weight, int64_t height,
                     int64_t width, int64_t stride, int64_t top, int64_t left) {
  TORCH_CHECK(grad.dim() == 4 && weight.dim() == 4 && grad.size(1) == weight.size(0) &&
                  grad.is_floating_point() && weight.is_floating_point(),
              "image_gradient: grad [N, out, h, w] and weight [out, in, k, k] must be floating "
              "point and share `out`, got ",
              grad.sizes(), " and ", weight.sizes(), ".");
  TORCH_CHECK(grad.size(1) > 0 && grad.size(2) > 0 && grad.size(3) > 0 && weight.numel() > 0,
              "image_gradient: only the batch may be empty.");
  const Geometry g{weight.size(1), height,         width,  grad.size(1), grad.size(2), grad.size(3),
                   weight.size(2), weight.size(3), stride, top,          left};
  TORCH_CHECK(stride > 0 && top >= 0 && left >= 0 && g.covered_rows() <= height + 2 * top &&
                  g.covered_columns() <= width + 2 * left,
              "image_gradient: the windows do not lie inside the padded image.");
  return g;
}

at::Tensor image_gradient(const at::Tensor& grad, const at::Tensor& weight, int64_t height,
                          int64_t width, int64_t stride, int64_t top, int64_t left) {
  const auto g = geometry_of(grad, weight, height, width, stride, top, left);
  const auto type = compute_type(weight);
  const auto from = with_regular_positions(as_type(grad, type));
  const auto kernel = as_type(weight, type).contiguous();
  auto out = at::empty({grad.size(0), g.channels, height, width}, kernel.options());
  const auto run = [&]<typename T>(T) {
    compute<T>(out.data_ptr<T>(), from, kernel.data_ptr<T>(), g);
  };
  type == at::kDouble ? run(double{}) : run(float{});
  return as_type(out, weight.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(fastinterp, CPU, m) { m.impl("image_gradient", &image_gradient); }

}  // namespace fastinterp::cpu
