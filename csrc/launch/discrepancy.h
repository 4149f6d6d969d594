// The discrepancy through block programs: check, allocate, launch.
#pragma once

#include <ATen/ops/matmul.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <tuple>

#include "../kernels/discrepancy_weight_tensor_cores.cuh"
#include "../saved.h"
#include "cam.h"
#include "discrepancy_plan.h"

namespace fastinterp::blocks {

template <typename T>
Discrepancy<T> discrepancy_args(const Sizes& sizes, const at::Tensor& before,
                                const at::Tensor& after, const at::Tensor& weight,
                                const at::Tensor& coefficient) {
  Discrepancy<T> args{};
  args.sizes = sizes;
  args.before = maps_of<T>(before);
  args.after = maps_of<T>(after);
  args.weight = weight.data_ptr<T>();
  args.coefficient = coefficient.data_ptr<Acc<T>>();
  return args;
}

inline at::Tensor empty_signs(const Sizes& sizes, const at::Tensor& like) {
  return at::empty({sizes.images, groups_of(sizes), sizes.positions},
                   like.options().dtype(at::kInt));
}

// Three launches, with signs and sums in global memory.
template <typename T, typename Launcher>
void discrepancy_in_steps(const Launcher& launch, Discrepancy<T> args, const at::Tensor& like) {
  const auto& sizes = args.sizes;
  const int64_t tiles = tiles_of(sizes), groups = groups_of(sizes), bytes = shared_bytes<T>();
  const auto signs = empty_signs(sizes, like);
  const auto partial =
      at::empty({sizes.images, tiles, 2, sizes.classes}, like.options().dtype(at::kDouble));
  args.signs = static_cast<uint32_t*>(signs.data_ptr());
  args.partial = partial.template data_ptr<double>();
  launch(sizes.images, tiles, groups, bytes, DiscrepancyMeasure<T>{args});
  launch(sizes.images, 1, 1, kThreads * sizeof(double), DiscrepancySettle<T>{args});
  if (args.by_after.data) launch(sizes.images, tiles, 1, bytes, DiscrepancySpread<T>{args});
}

template <typename Launcher>
std::tuple<at::Tensor, at::Tensor, at::Tensor> discrepancy(
    const at::Tensor& features, const at::Tensor& features_adv, const at::Tensor& weight,
    const at::Tensor& labels, const std::optional<at::Tensor>& bias, bool weighted, int64_t keep) {
  check_discrepancy(features, features_adv, weight, labels, bias);
  const auto sizes = sizes_of(features, weight);
  const auto before = with_regular_positions(features);
  const auto after = with_regular_positions(features_adv);
  const auto w = weight.contiguous();
  const auto b = bias ? bias->contiguous() : at::Tensor();
  const auto t = labels.contiguous();
  const auto type = features.scalar_type();
  const bool with_grad = keep == kGradient;
  auto value = at::empty({sizes.images}, features.options());
  auto grad = with_grad ? empty_maps_like(features_adv, type) : at::empty({0}, features.options());
  at::Tensor coefficient;
  FI_DISPATCH(type, [&] {
    using T = scalar_t;
    const auto wide = features.options().dtype(accumulate_type<T>());
    coefficient = at::empty({sizes.images, 2, sizes.classes}, wide);
    auto args = discrepancy_args<T>(sizes, before, after, w, coefficient);
    args.bias = bias ? b.data_ptr<T>() : nullptr;
    args.labels = t.data_ptr<int64_t>();
    args.weighted = weighted;
    args.value = value.data_ptr<T>();
    if (with_grad) args.by_after = maps_of<T>(grad);
    const Launcher launch;
    const auto plan = cluster_plan(args, launch.template limits<DiscrepancyCluster<T>>());
    if (plan.ranks > 0) {
      launch.cluster(sizes.images, plan.ranks, plan.bytes, DiscrepancyCluster<T>{args, plan});
    } else {
      discrepancy_in_steps(launch, args, features);
    }
  });
  return {value, with_grad ? as_laid_out(grad, features_adv) : grad, coefficient};
}

// Gradients by the maps, where wanted, and the signs.
template <typename T, typename Launcher>
void map_gradients_in_steps(const Launcher& launch, const Discrepancy<T>& args) {
  const int64_t images = args.sizes.images, tiles = tiles_of(args.sizes), bytes = shared_bytes<T>();
  launch(images, tiles, groups_of(args.sizes), bytes, DiscrepancyMeasure<T>{args});
  if (args.by_before.data || args.by_after.data) {
    launch(images, tiles, 1, bytes, DiscrepancySpread<T>{args});
  }
}

// The gradient by the weight, in parts that are to be added up.
template <typename T, typename Launcher>
at::Tensor weight_gradient_in_steps(const Launcher& launch, const Discrepancy<T>& args,
                                    const at::TensorOptions& options) {
  const auto& sizes = args.sizes;
  const int64_t parts = weight_parts(sizes);
  const auto partial = at::empty({parts, sizes.classes, sizes.channels}, options);
  launch(sizes.channels, groups_of(sizes), parts, shared_bytes<T>(),
         DiscrepancyWeight<T>{args, partial.template data_ptr<Acc<T>>(), parts});
  return partial.sum(0);
}

// The same from tensor cores; what comes by r is a product of its own, in float32.
template <typename T, typename Launcher>
at::Tensor weight_gradient_by_tiles(const Launcher& launch, const Discrepancy<T>& args,
                                    const at::Tensor& grad, const at::Tensor& after,
                                    const at::Tensor& coefficients) {
  constexpr int64_t kBlocks = 128;  // enough for a GPU to have something to do everywhere
  const auto& sizes = args.sizes;
  const int64_t across = (sizes.channels + kSide - 1) / kSide;
  const int64_t down = (sizes.classes + kSide - 1) / kSide;
  const int64_t wanted = (kBlocks + across * down - 1) / (across * down);
  const int64_t parts = std::max<int64_t>(1, std::min(sizes.images, wanted));
  const auto partial = at::empty({parts, sizes.classes, sizes.channels}, coefficients.options());
  launch(across, down, parts, sizeof(WeightWork<T>),
         DiscrepancyWeightTiles<T>{args, partial.template data_ptr<float>(), parts});
  const auto r = coefficients.view({sizes.images, 2, sizes.classes}).select(1, 1);
  const auto scaled = grad.to(at::kFloat).div(sizes.positions).unsqueeze(1).mul(r);
  return at::matmul(scaled.t(), at::sum(after, {2, 3}, false, at::kFloat)).add_(partial.sum(0));
}

template <typename Launcher>
std::tuple<at::Tensor, at::Tensor, at::Tensor> discrepancy_backward(
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
  const auto before = with_regular_positions(features);
  const auto after = with_regular_positions(features_adv);
  const auto w = weight.contiguous();
  const auto g = grad.to(type).contiguous();
  const auto coefficients = coefficient.contiguous();
  const auto signs = empty_signs(sizes, after);
  const auto nothing = at::empty({0}, features.options());
  auto by_before = need_features ? empty_maps_like(features, type) : nothing;
  auto by_after = need_features_adv ? empty_maps_like(features_adv, type) : nothing;
  auto by_weight = nothing;
  FI_DISPATCH(type, [&] {
    using T = scalar_t;
    auto args = discrepancy_args<T>(sizes, before, after, w, coefficients);
    args.signs = static_cast<uint32_t*>(signs.data_ptr());
    args.grad = g.data_ptr<T>();
    if (need_features) args.by_before = maps_of<T>(by_before);
    if (need_features_adv) args.by_after = maps_of<T>(by_after);
    const Launcher launch;
    if constexpr (sizeof(T) == 2) {
      const auto plan = backward_plan(args, launch.template limits<DiscrepancyBackwardTiles<T>>());
      if (plan.bytes > 0) {
        launch.cluster(sizes.images * tiles_of(sizes), 1, plan.bytes,
                       DiscrepancyBackwardTiles<T>{args, plan});
        if (!need_weight) return;
        by_weight = weight_gradient_by_tiles(launch, args, g, after, coefficients).to(type);
        return;
      }
    }
    map_gradients_in_steps(launch, args);
    if (!need_weight) return;
    by_weight =
        weight_gradient_in_steps(launch, args, features.options().dtype(accumulate_type<T>()))
            .to(type);
  });
  return {need_features ? as_laid_out(by_before, features) : nothing,
          need_features_adv ? as_laid_out(by_after, features_adv) : nothing, by_weight};
}

}  // namespace fastinterp::blocks
