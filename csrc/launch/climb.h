// A whole climb on a GPU: check, allocate, launch.
#pragma once

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <tuple>

#include "../rows.h"
#include "climb_plan.h"
#include "launcher.h"
#include "pgd_step.h"

namespace fastinterp {

// What a climb maximises, beside its network.
struct ClimbTarget {
  const std::optional<at::Tensor>& bias;
  const at::Tensor& labels;
  const std::optional<at::Tensor>&maps, &log_p;
  at::ArrayRef<double> terms;  // weights of cross-entropy, KL and discrepancy
  bool weighted;
};

inline void check_climb_target(const ClimbTarget& target, const at::Tensor& x,
                               const ClimbMap& top) {
  const auto fits = [&](const std::optional<at::Tensor>& t, at::IntArrayRef sizes) {
    return !t ||
           (t->sizes() == sizes && t->scalar_type() == at::kFloat && t->device() == x.device());
  };
  check_labels("climb", target.labels, x);
  TORCH_CHECK(top.channels >= 2, "climb: at least 2 classes are needed, got ", top.channels, ".");
  TORCH_CHECK(target.terms.size() == 3, "climb: three weights of terms are needed.");
  TORCH_CHECK((target.terms[1] == 0 || target.log_p) && (target.terms[2] == 0 || target.maps),
              "climb: KL needs log_p, and the discrepancy maps.");
  TORCH_CHECK(fits(target.bias, {top.channels}) && fits(target.log_p, {x.size(0), top.channels}) &&
                  fits(target.maps, {x.size(0), top.channels, top.rows, top.columns}),
              "climb: bias [C], log_p [N, C] and maps [N, C, h, w] must be float32 on x's device "
              "and have the sizes of the last convolution's output.");
}

inline void check_climb(const at::Tensor& x, const at::Tensor& start,
                        const std::vector<at::Tensor>& weights,
                        const std::vector<at::Tensor>& biases, int64_t steps) {
  TORCH_CHECK(x.dim() == 4 && x.scalar_type() == at::kFloat && x.size(1) == weights[0].size(1),
              "climb: x must be float32 [N, ", weights[0].size(1), ", H, W], got ", x.scalar_type(),
              " ", x.sizes(), ".");
  check_like("climb", x, start);
  TORCH_CHECK(steps >= 0, "climb: steps must not be negative.");
  TORCH_CHECK(weights.size() <= kClimbLayers && weights.size() == biases.size(),
              "climb: there may be ", kClimbLayers, " convolutions at most, each with its bias.");
  for (size_t l = 0; l < weights.size(); ++l) {
    for (const auto& t : {weights[l], biases[l]}) {
      TORCH_CHECK(t.scalar_type() == at::kFloat && t.device() == x.device() &&
                      t.size(0) == weights[l].size(0) && t.numel() > 0,
                  "climb: weights and biases must be float32 on x's device and fit each other.");
    }
    TORCH_CHECK(biases[l].dim() == 1, "climb: a bias must be [out].");
  }
}

// Whether a block has the shared memory that the network needs.
template <typename Launcher>
bool launch_climb_fits(const at::Tensor& x, const std::vector<at::Tensor>& weights,
                       at::IntArrayRef geometry) {
  if (weights.size() > kClimbLayers) return false;
  const auto plan = climb_plan<float>(climb_convolutions(weights, geometry), x.size(2), x.size(3));
  return plan.bytes <= Launcher::template most_shared_bytes<ClimbKernel<float>>();
}

template <typename Launcher>
std::tuple<at::Tensor, at::Tensor, at::Tensor> launch_climb(
    const at::Tensor& x, const at::Tensor& start, bool drawn, int64_t steps, double step_size,
    double eps, const std::optional<at::Tensor>& step_sizes,
    const std::optional<at::Tensor>& eps_rows, double lower, double upper,
    const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
    at::IntArrayRef geometry, const std::optional<at::Tensor>& bias, const at::Tensor& labels,
    const std::optional<at::Tensor>& maps, const std::optional<at::Tensor>& log_p,
    at::ArrayRef<double> terms, bool weighted) {
  using T = float;
  const auto convolutions = climb_convolutions(weights, geometry);
  check_climb(x, start, weights, biases, steps);
  const RowSettings settings{step_size, eps, step_sizes, eps_rows, lower, upper, 0};
  check_step(start, start, x, settings);
  ClimbKernel<T> kernel{};
  kernel.plan = climb_plan<T>(convolutions, x.size(2), x.size(3));
  const ClimbTarget target{bias, labels, maps, log_p, terms, weighted};
  check_climb_target(target, x, kernel.plan.map[kernel.plan.layers]);
  TORCH_CHECK(kernel.plan.bytes <= Launcher::template most_shared_bytes<ClimbKernel<T>>(),
              "climb: the network needs ", kernel.plan.bytes,
              " bytes of shared memory, more than a block can have.");
  // Contiguous copies, alive until the launch.
  const auto dense = [](const std::optional<at::Tensor>& t) {
    return t ? t->contiguous() : at::Tensor();
  };
  const auto rows = x.contiguous(), from = start.contiguous(), y = labels.contiguous();
  const auto sizes = dense(step_sizes), radii = dense(eps_rows), b = dense(bias);
  const auto clean = dense(maps), logarithms = dense(log_p);
  std::vector<at::Tensor> parameters;
  for (size_t l = 0; l < weights.size(); ++l) {
    parameters.push_back(weights[l].contiguous());
    kernel.weight[l] = parameters.back().data_ptr<T>();
    parameters.push_back(biases[l].contiguous());
    kernel.layer_bias[l] = parameters.back().data_ptr<T>();
  }
  const auto out = at::empty_like(rows);
  auto grad = steps > 0 ? at::empty_like(rows) : at::zeros(rows.sizes(), rows.options());
  auto value =
      steps > 0 ? at::empty({x.size(0)}, x.options()) : at::zeros({x.size(0)}, x.options());
  if (x.size(0) == 0) return {at::empty_like(x), grad, value};
  const auto numbers = [](const at::Tensor& t) { return t.defined() ? t.data_ptr<T>() : nullptr; };
  kernel.pgd = pgd_step_params<T>(out, {from, grad, rows}, settings, sizes, radii);
  kernel.drawn = drawn;
  kernel.steps = steps;
  kernel.terms = {terms[0], terms[1], terms[2], weighted};
  kernel.labels = y.data_ptr<int64_t>();
  kernel.bias = numbers(b);
  kernel.clean = terms[2] == 0 ? nullptr : numbers(clean);
  kernel.log_p = terms[1] == 0 ? nullptr : numbers(logarithms);
  kernel.grad = grad.data_ptr<T>();
  kernel.value = value.data_ptr<T>();
  Launcher()(x.size(0), 1, 1, kernel.plan.bytes, kernel);
  return {lie_alike(out, x) ? out : at::empty_like(x).copy_(out), grad, value};
}

}  // namespace fastinterp
