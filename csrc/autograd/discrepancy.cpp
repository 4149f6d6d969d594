// The autograd formula of the discrepancy, in C++: attacks call it at every step, and Python would
// take as long as the kernel. With q_c = dD/dS_c and r_c = dD/df_c (the coefficients [N, 2, C]):
//   dD/dA' = (1/u) W^T (q sign(M) + r),   dD/dA = -(1/u) W^T (q sign(M)),   M = W (A' - A).
// If only A' needs a gradient (the inner loop), the forward pass computes it with one more product
// and the backward pass only scales it. If other inputs need one too, the forward pass saves the
// signs of M.
#include <ATen/ATen.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

#include "../saved.h"
#include "find.h"

namespace fastinterp {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Triple = std::tuple<Tensor, Tensor, Tensor>;

Triple forward(const Tensor& features, const Tensor& features_adv, const Tensor& weight,
               const Tensor& labels, const std::optional<Tensor>& bias, bool weighted,
               int64_t save) {
  static const auto op = find<decltype(forward)>("fastinterp::discrepancy");
  return op.call(features, features_adv, weight, labels, bias, weighted, save);
}

Triple backward(const Tensor& grad, const Tensor& features, const Tensor& features_adv,
                const Tensor& weight, const Tensor& coefficients, const Tensor& signs,
                bool need_features, bool need_features_adv, bool need_weight) {
  static const auto op = find<decltype(backward)>("fastinterp::discrepancy_backward");
  return op.call(grad, features, features_adv, weight, coefficients, signs, need_features,
                 need_features_adv, need_weight);
}

Tensor reference(const Tensor& features, const Tensor& features_adv, const Tensor& weight,
                 const Tensor& labels, const std::optional<Tensor>& bias, bool weighted) {
  static const auto op = find<decltype(reference)>("fastinterp::discrepancy_reference");
  return op.call(features, features_adv, weight, labels, bias, weighted);
}

// Whether the upstream gradient is all ones, as that of a sum, so that nothing needs scaling. False
// on a GPU, where looking would wait for the device.
bool is_ones(const Tensor& grad) {
  if (!grad.device().is_cpu() || at::isTensorSubclassLike(grad) || grad.is_meta()) return false;
  if (grad.scalar_type() != at::kFloat) return false;
  const float* values = grad.const_data_ptr<float>();
  for (int64_t n = 0, step = grad.stride(0); n < grad.numel(); ++n) {
    if (values[n * step] != 1.0f) return false;
  }
  return true;
}

class Discrepancy : public torch::autograd::Function<Discrepancy> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& features,
                               const Tensor& features_adv, const Tensor& weight,
                               const Tensor& labels, const std::optional<Tensor>& bias,
                               bool weighted, int64_t save) {
    at::AutoDispatchBelowADInplaceOrView below;
    auto [value, saved, coefficients] =
        fastinterp::forward(features, features_adv, weight, labels, bias, weighted, save);
    ctx->save_for_backward(
        {features, features_adv, weight, labels, bias.value_or(Tensor()), saved, coefficients});
    ctx->saved_data["weighted"] = weighted;
    ctx->saved_data["save"] = save;
    ctx->mark_non_differentiable({saved, coefficients});
    ctx->set_materialize_grads(false);
    return {value, saved, coefficients};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    variable_list by(7);
    const Tensor& grad = grads[0];
    if (!grad.defined()) return by;
    const auto saved = ctx->get_saved_variables();
    const int64_t save = ctx->saved_data["save"].toInt();
    if (at::GradMode::is_enabled()) return differentiable(ctx, saved, grad);
    if (needs(ctx, saved, 4)) {
      const auto r = saved[6].select(1, 1);
      by[4] = at::matmul(grad.to(r.scalar_type()), r).to(saved[4].scalar_type());
    }
    if (save == kSaveGradient) {
      by[1] = is_ones(grad) ? saved[5] : at::mul(saved[5], grad.view({-1, 1, 1, 1}));
      return by;
    }
    const auto signs = save == kSaveSigns ? saved[5] : saved[5].new_empty({0});
    std::tie(by[0], by[1], by[2]) = fastinterp::backward(
        grad, saved[0], saved[1], saved[2], saved[6], signs, ctx->needs_input_grad(0),
        ctx->needs_input_grad(1), ctx->needs_input_grad(2));
    for (const int i : {0, 1, 2}) {
      if (!ctx->needs_input_grad(i)) by[i] = Tensor();
    }
    return by;
  }

 private:
  // torch counts tensors only: without a bias there is no input 4.
  static bool needs(AutogradContext* ctx, const variable_list& saved, int i) {
    return saved[i].defined() && ctx->needs_input_grad(i);
  }

  // Under create_graph: the gradient of the reference, which torch can differentiate again.
  static variable_list differentiable(AutogradContext* ctx, const variable_list& saved,
                                      const Tensor& grad) {
    const auto bias = saved[4].defined() ? std::optional<Tensor>(saved[4]) : std::nullopt;
    const auto value = fastinterp::reference(saved[0], saved[1], saved[2], saved[3], bias,
                                             ctx->saved_data["weighted"].toBool());
    variable_list inputs, by(7);
    for (const int i : {0, 1, 2, 4}) {
      if (needs(ctx, saved, i)) inputs.push_back(saved[i]);
    }
    const auto found = torch::autograd::grad({value}, inputs, {grad}, /*retain_graph=*/true,
                                             /*create_graph=*/true, /*allow_unused=*/true);
    size_t next = 0;
    for (const int i : {0, 1, 2, 4}) {
      if (needs(ctx, saved, i)) by[i] = found[next++];
    }
    return by;
  }
};

// Whether autograd tracks the tensor, in backward or forward mode.
bool is_tracked(const Tensor& tensor) {
  return (at::GradMode::is_enabled() && tensor.requires_grad()) || tensor._fw_grad(0).defined();
}

Triple discrepancy(const Tensor& features, const Tensor& features_adv, const Tensor& weight,
                   const Tensor& labels, const std::optional<Tensor>& bias, bool weighted,
                   int64_t save) {
  if (!is_tracked(features) && !is_tracked(features_adv) && !is_tracked(weight) &&
      !(bias && is_tracked(*bias))) {
    at::AutoDispatchBelowADInplaceOrView below;
    return forward(features, features_adv, weight, labels, bias, weighted, save);
  }
  const auto found =
      Discrepancy::apply(features, features_adv, weight, labels, bias, weighted, save);
  return {found[0], found[1], found[2]};
}

}  // namespace

TORCH_LIBRARY_IMPL(fastinterp, Autograd, m) { m.impl("discrepancy", &discrepancy); }

}  // namespace fastinterp
