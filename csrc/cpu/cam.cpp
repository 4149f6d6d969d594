// Class activation maps on the CPU: check, allocate, loop over images.
#include <ATen/ops/div.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "../checks.h"
#include "panels.h"

namespace fastinterp::cpu {
namespace {

// target[n] = weights source[n] for every image, weights [target rows, source rows] read through
// strides (so also transposed).
template <typename T>
void project(T* target, int64_t target_rows, const Maps<T>& source, int64_t source_rows,
             const T* weights, Strides at, const Sizes& sizes) {
  const auto& vector = primitives<T>();
  const Tiling<T> tiling(sizes);
  share_out(sizes.images, [&](const auto& next) {
    const Scratch<T> in(source_rows * tiling.ld);
    for (int64_t n = next(); n < sizes.images; n = next()) {
      for (int64_t tile = 0; tile < tiling.count; ++tile) {
        const int64_t p = tiling.begin(tile), columns = tiling.columns(tile);
        vector.load(in.get(), tiling.ld, tile_of(source, n, p), strides_of(source), nullptr, {},
                    source_rows, columns, nullptr);
        vector.product(target + n * target_rows * sizes.positions + p, sizes.positions, weights, at,
                       in.get(), tiling.ld, target_rows, source_rows, columns, /*add=*/false);
      }
    }
  });
}

// partial[part] = (1/u) sum over the part's images and positions of maps x features.
template <typename T>
void correlate(double* partial, int64_t parts, const Maps<T>& maps, const Maps<T>& features,
               const Sizes& sizes) {
  const Tiling<T> tiling(sizes);
  const int64_t outputs = sizes.classes * sizes.channels;
  share_out(parts, [&](const auto& next) {
    Correlation<T> correlation(sizes, tiling, 1.0 / static_cast<double>(sizes.positions));
    for (int64_t part = next(); part < parts; part = next()) {
      const int64_t begin = sizes.images * part / parts, end = sizes.images * (part + 1) / parts;
      for (int64_t n = begin; n < end; ++n) {
        for (int64_t tile = 0; tile < tiling.count; ++tile) {
          const int64_t p = tiling.begin(tile);
          correlation.add(partial + part * outputs, tile_of(maps, n, p), strides_of(maps),
                          tile_of(features, n, p), strides_of(features), nullptr, {},
                          tiling.columns(tile));
        }
      }
      correlation.flush(partial + part * outputs);
    }
  });
}

void check_grad(const at::Tensor& grad, const at::Tensor& features, const at::Tensor& weight) {
  TORCH_CHECK(grad.dim() == 4 && grad.size(0) == features.size(0) &&
                  grad.size(1) == weight.size(0) && grad.size(2) == features.size(2) &&
                  grad.size(3) == features.size(3) && grad.scalar_type() == features.scalar_type(),
              "cam: the gradient must be like the maps, got ", grad.sizes(), ".");
}

// W / u: what a map is made with, so that products need no scaling.
at::Tensor scaled(const at::Tensor& weight, at::ScalarType type, const Sizes& sizes) {
  return weight.to(type).contiguous().div(static_cast<double>(sizes.positions));
}

at::Tensor cam(const at::Tensor& features, const at::Tensor& weight) {
  check_maps("cam", features, weight);
  const auto type = compute_type(features);
  const auto in = with_regular_positions(features.to(type));
  const auto sizes = sizes_of(features, weight);
  const auto w = scaled(weight, type, sizes);
  auto out = at::empty({features.size(0), weight.size(0), features.size(2), features.size(3)},
                       in.options());
  const auto run = [&]<typename T>(T) {
    project<T>(out.data_ptr<T>(), sizes.classes, maps_of<T>(in), sizes.channels, w.data_ptr<T>(),
               {sizes.channels, 1}, sizes);
  };
  type == at::kDouble ? run(double{}) : run(float{});
  return out.to(features.scalar_type());
}

at::Tensor cam_backward_features(const at::Tensor& grad, const at::Tensor& features,
                                 const at::Tensor& weight) {
  check_maps("cam", features, weight);
  check_grad(grad, features, weight);
  const auto type = compute_type(features);
  const auto in = with_regular_positions(grad.to(type));
  const auto sizes = sizes_of(features, weight);
  const auto w = scaled(weight, type, sizes);
  auto out = at::empty(features.sizes(), in.options());
  const auto run = [&]<typename T>(T) {
    project<T>(out.data_ptr<T>(), sizes.channels, maps_of<T>(in), sizes.classes, w.data_ptr<T>(),
               {1, sizes.channels}, sizes);
  };
  type == at::kDouble ? run(double{}) : run(float{});
  return out.to(features.scalar_type());
}

at::Tensor cam_backward_weight(const at::Tensor& grad, const at::Tensor& features,
                               const at::Tensor& weight) {
  check_maps("cam", features, weight);
  check_grad(grad, features, weight);
  const auto type = compute_type(features);
  const auto maps = with_regular_positions(grad.to(type));
  const auto in = with_regular_positions(features.to(type));
  const auto sizes = sizes_of(features, weight);
  const int64_t parts = parts_of(sizes);
  auto partial = at::zeros({parts, sizes.classes, sizes.channels}, in.options().dtype(at::kDouble));
  const auto run = [&]<typename T>(T) {
    correlate<T>(partial.data_ptr<double>(), parts, maps_of<T>(maps), maps_of<T>(in), sizes);
  };
  type == at::kDouble ? run(double{}) : run(float{});
  return partial.sum(0).to(features.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(fastinterp, CPU, m) {
  m.impl("cam", &cam);
  m.impl("cam_backward_features", &cam_backward_features);
  m.impl("cam_backward_weight", &cam_backward_weight);
}

}  // namespace fastinterp::cpu
