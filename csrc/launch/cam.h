// Class activation maps on a GPU: check, allocate, launch.
#pragma once

#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>

#include "../checks.h"
#include "../kernels/cam.cuh"
#include "launcher.h"

namespace fastinterp {

inline void check_cam_grad(const at::Tensor& grad, const at::Tensor& features,
                           const at::Tensor& weight) {
  TORCH_CHECK(
      grad.dim() == 4 && grad.size(0) == features.size(0) && grad.size(1) == weight.size(0) &&
          grad.size(2) == features.size(2) && grad.size(3) == features.size(3) &&
          grad.scalar_type() == features.scalar_type() && grad.device() == features.device(),
      "cam: the gradient must be like the maps, got ", grad.sizes(), ".");
}

template <typename Launcher>
at::Tensor launch_cam(const at::Tensor& features, const at::Tensor& weight) {
  check_maps("cam", features, weight);
  const auto in = with_regular_positions(features);
  const auto w = weight.contiguous();
  const auto sizes = sizes_of(in, w);
  auto out = at::empty({sizes.images, sizes.classes, in.size(2), in.size(3)}, features.options());
  FI_DISPATCH(in.scalar_type(), [&] {
    using T = scalar_t;
    const CamForwardKernel<T> program{sizes, maps_of<T>(in), maps_of<T>(out), w.data_ptr<T>()};
    Launcher()(sizes.images, tiles_of(sizes), class_tiles_of(sizes), shared_bytes<T>(), program);
  });
  return out;
}

template <typename Launcher>
at::Tensor launch_cam_backward_features(const at::Tensor& grad, const at::Tensor& features,
                                        const at::Tensor& weight) {
  check_maps("cam", features, weight);
  check_cam_grad(grad, features, weight);
  const auto in = with_regular_positions(grad);
  const auto w = weight.contiguous();
  const auto sizes = sizes_of(features, w);
  auto out = at::empty(features.sizes(), features.options());
  FI_DISPATCH(in.scalar_type(), [&] {
    using T = scalar_t;
    const CamBackwardFeaturesKernel<T> program{sizes, maps_of<T>(in), maps_of<T>(out),
                                               w.data_ptr<T>()};
    Launcher()(sizes.images, tiles_of(sizes), 1, shared_bytes<T>(), program);
  });
  return out;
}

template <typename Launcher>
at::Tensor launch_cam_backward_weight(const at::Tensor& grad, const at::Tensor& features,
                                      const at::Tensor& weight) {
  check_maps("cam", features, weight);
  check_cam_grad(grad, features, weight);
  const auto maps = with_regular_positions(grad);
  const auto in = with_regular_positions(features);
  const auto sizes = sizes_of(features, weight);
  const int64_t parts = weight_parts(sizes);
  at::Tensor total;
  FI_DISPATCH(in.scalar_type(), [&] {
    using T = scalar_t;
    auto partial =
        at::empty({parts, sizes.classes, sizes.channels}, in.options().dtype(accumulate_type<T>()));
    const CamBackwardWeightKernel<T> program{sizes, maps_of<T>(maps), maps_of<T>(in),
                                             partial.template data_ptr<AccType<T>>(), parts};
    Launcher()(sizes.channels, class_tiles_of(sizes), parts, shared_bytes<T>(), program);
    total = partial.sum(0).to(features.scalar_type());
  });
  return total;
}

}  // namespace fastinterp
