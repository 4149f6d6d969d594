// The discrepancy on a GPU: check, allocate, launch.
#pragma once

#include <ATen/ops/matmul.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <tuple>

#include "../kernels/discrepancy_weight_tensor_cores.cuh"
#include "../saved.h"
#include "cam.h"
#include "discrepancy_plan.h"

namespace fastinterp {

template <typename T>
DiscrepancyParams<T> discrepancy_params(const Sizes& sizes, const at::Tensor& features,
                                        const at::Tensor& features_adv, const at::Tensor& weight,
                                        const at::Tensor& coefficient) {
  DiscrepancyParams<T> args{};
  args.sizes = sizes;
  args.features = maps_of<T>(features);
  args.features_adv = maps_of<T>(features_adv);
  args.weight = weight.data_ptr<T>();
  args.coefficient = coefficient.data_ptr<AccType<T>>();
  return args;
}

inline at::Tensor empty_signs(const Sizes& sizes, const at::Tensor& like) {
  return at::empty({sizes.images, class_tiles_of(sizes), sizes.positions},
                   like.options().dtype(at::kInt));
}

// Three launches, which pass the signs and the sums through global memory.
template <typename T, typename Launcher>
void discrepancy_in_steps(const Launcher& launch, DiscrepancyParams<T> args,
                          const at::Tensor& like) {
  const auto& sizes = args.sizes;
  const int64_t tiles = tiles_of(sizes), class_tiles = class_tiles_of(sizes),
                bytes = shared_bytes<T>();
  const auto signs = empty_signs(sizes, like);
  const auto partial =
      at::empty({sizes.images, tiles, 2, sizes.classes}, like.options().dtype(at::kDouble));
  args.signs = static_cast<uint32_t*>(signs.data_ptr());
  args.partial = partial.template data_ptr<double>();
  launch(sizes.images, tiles, class_tiles, bytes, DiscrepancyForwardKernel<T>{args});
  launch(sizes.images, 1, 1, kThreads * sizeof(double), DiscrepancySoftmaxKernel<T>{args});
  if (args.grad_features_adv.data) {
    launch(sizes.images, tiles, 1, bytes, DiscrepancyBackwardKernel<T>{args});
  }
}

template <typename Launcher>
std::tuple<at::Tensor, at::Tensor, at::Tensor> launch_discrepancy(
    const at::Tensor& features, const at::Tensor& features_adv, const at::Tensor& weight,
    const at::Tensor& labels, const std::optional<at::Tensor>& bias, bool weighted, int64_t save) {
  check_discrepancy(features, features_adv, weight, labels, bias);
  const auto sizes = sizes_of(features, weight);
  const auto clean = with_regular_positions(features);
  const auto adv = with_regular_positions(features_adv);
  const auto w = weight.contiguous();
  const auto b = bias ? bias->contiguous() : at::Tensor();
  const auto t = labels.contiguous();
  const auto type = features.scalar_type();
  const bool with_grad = save == kSaveGradient;
  auto value = at::empty({sizes.images}, features.options());
  auto grad_features_adv =
      with_grad ? empty_maps_like(features_adv, type) : at::empty({0}, features.options());
  at::Tensor coefficient;
  FI_DISPATCH(type, [&] {
    using T = scalar_t;
    const auto wide = features.options().dtype(accumulate_type<T>());
    coefficient = at::empty({sizes.images, 2, sizes.classes}, wide);
    auto args = discrepancy_params<T>(sizes, clean, adv, w, coefficient);
    args.bias = bias ? b.data_ptr<T>() : nullptr;
    args.labels = t.data_ptr<int64_t>();
    args.weighted = weighted;
    args.value = value.data_ptr<T>();
    if (with_grad) args.grad_features_adv = maps_of<T>(grad_features_adv);
    const Launcher launch;
    const auto plan = cluster_plan(args, launch.template limits<DiscrepancyClusterKernel<T>>());
    if (plan.ranks > 0) {
      launch.cluster(sizes.images, plan.ranks, plan.bytes, DiscrepancyClusterKernel<T>{args, plan});
    } else {
      discrepancy_in_steps(launch, args, features);
    }
  });
  return {value, with_grad ? as_laid_out(grad_features_adv, features_adv) : grad_features_adv,
          coefficient};
}

// Computes the signs again and, where wanted, grad_features and grad_features_adv.
template <typename T, typename Launcher>
void feature_gradients_in_steps(const Launcher& launch, const DiscrepancyParams<T>& args) {
  const int64_t images = args.sizes.images, tiles = tiles_of(args.sizes), bytes = shared_bytes<T>();
  launch(images, tiles, class_tiles_of(args.sizes), bytes, DiscrepancyForwardKernel<T>{args});
  if (args.grad_features.data || args.grad_features_adv.data) {
    launch(images, tiles, 1, bytes, DiscrepancyBackwardKernel<T>{args});
  }
}

// grad_weight, as the sum of partial sums over parts of the batch.
template <typename T, typename Launcher>
at::Tensor weight_gradient_in_steps(const Launcher& launch, const DiscrepancyParams<T>& args,
                                    const at::TensorOptions& options) {
  const auto& sizes = args.sizes;
  const int64_t parts = weight_parts(sizes);
  const auto partial = at::empty({parts, sizes.classes, sizes.channels}, options);
  launch(sizes.channels, class_tiles_of(sizes), parts, shared_bytes<T>(),
         DiscrepancyWeightKernel<T>{args, partial.template data_ptr<AccType<T>>(), parts});
  return partial.sum(0);
}

// grad_weight on tensor cores. The term with r is a separate product, in float32.
template <typename T, typename Launcher>
at::Tensor weight_gradient_tensor_cores(const Launcher& launch, const DiscrepancyParams<T>& args,
                                        const at::Tensor& grad, const at::Tensor& features_adv,
                                        const at::Tensor& coefficients) {
  constexpr int64_t kBlocks = 128;  // enough to occupy the GPU
  const auto& sizes = args.sizes;
  const int64_t across = (sizes.channels + kGradientTile - 1) / kGradientTile;
  const int64_t down = (sizes.classes + kGradientTile - 1) / kGradientTile;
  const int64_t wanted = (kBlocks + across * down - 1) / (across * down);
  const int64_t parts = std::max<int64_t>(1, std::min(sizes.images, wanted));
  const auto partial = at::empty({parts, sizes.classes, sizes.channels}, coefficients.options());
  launch(across, down, parts, sizeof(WeightStorage<T>),
         DiscrepancyWeightTensorCoreKernel<T>{args, partial.template data_ptr<float>(), parts});
  const auto r = coefficients.view({sizes.images, 2, sizes.classes}).select(1, 1);
  const auto scaled = grad.to(at::kFloat).div(sizes.positions).unsqueeze(1).mul(r);
  return at::matmul(scaled.t(), at::sum(features_adv, {2, 3}, false, at::kFloat))
      .add_(partial.sum(0));
}

template <typename Launcher>
std::tuple<at::Tensor, at::Tensor, at::Tensor> launch_discrepancy_backward(
    const at::Tensor& grad, const at::Tensor& features, const at::Tensor& features_adv,
    const at::Tensor& weight, const at::Tensor& coefficient, const at::Tensor& /*signs*/,
    bool need_features, bool need_features_adv, bool need_weight) {
  check_maps("discrepancy", features, weight);
  check_like("discrepancy", features, features_adv);
  const auto sizes = sizes_of(features, weight);
  TORCH_CHECK(grad.dim() == 1 && grad.size(0) == sizes.images, "discrepancy: grad must be [N].");
  TORCH_CHECK(coefficient.numel() == 2 * sizes.images * sizes.classes,
              "discrepancy: coefficients must be the forward pass's.");
  const auto type = features.scalar_type();
  const auto clean = with_regular_positions(features);
  const auto adv = with_regular_positions(features_adv);
  const auto w = weight.contiguous();
  const auto g = grad.to(type).contiguous();
  const auto coefficients = coefficient.contiguous();
  const auto signs = empty_signs(sizes, adv);
  const auto nothing = at::empty({0}, features.options());
  auto grad_features = need_features ? empty_maps_like(features, type) : nothing;
  auto grad_features_adv = need_features_adv ? empty_maps_like(features_adv, type) : nothing;
  auto grad_weight = nothing;
  FI_DISPATCH(type, [&] {
    using T = scalar_t;
    auto args = discrepancy_params<T>(sizes, clean, adv, w, coefficients);
    args.signs = static_cast<uint32_t*>(signs.data_ptr());
    args.grad = g.data_ptr<T>();
    if (need_features) args.grad_features = maps_of<T>(grad_features);
    if (need_features_adv) args.grad_features_adv = maps_of<T>(grad_features_adv);
    const Launcher launch;
    if constexpr (sizeof(T) == 2) {
      const auto plan =
          backward_plan(args, launch.template limits<DiscrepancyBackwardTensorCoreKernel<T>>());
      if (plan.bytes > 0) {
        launch.cluster(sizes.images * tiles_of(sizes), 1, plan.bytes,
                       DiscrepancyBackwardTensorCoreKernel<T>{args, plan});
        if (!need_weight) return;
        grad_weight = weight_gradient_tensor_cores(launch, args, g, adv, coefficients).to(type);
        return;
      }
    }
    feature_gradients_in_steps(launch, args);
    if (!need_weight) return;
    grad_weight =
        weight_gradient_in_steps(launch, args, features.options().dtype(accumulate_type<T>()))
            .to(type);
  });
  return {need_features ? as_laid_out(grad_features, features) : nothing,
          need_features_adv ? as_laid_out(grad_features_adv, features_adv) : nothing, grad_weight};
}

}  // namespace fastinterp
