// The projected step has no derivative: it runs below autograd, also for inputs that need
// gradients.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/library.h>

#include <optional>

#include "find.h"

namespace fastinterp {
namespace {

using at::Tensor;
using Rows = const std::optional<Tensor>&;

Tensor pgd_step(const Tensor& x_adv, const Tensor& grad, const Tensor& x, double step_size,
                double eps, Rows step_sizes, Rows eps_rows, double lower, double upper,
                int64_t norm) {
  static const auto op = find<decltype(pgd_step)>("fastinterp::pgd_step");
  at::AutoDispatchBelowADInplaceOrView below;
  return op.call(x_adv, grad, x, step_size, eps, step_sizes, eps_rows, lower, upper, norm);
}

void pgd_step_(Tensor x_adv, const Tensor& grad, const Tensor& x, double step_size, double eps,
               Rows step_sizes, Rows eps_rows, double lower, double upper, int64_t norm) {
  static const auto op = find<decltype(pgd_step_)>("fastinterp::pgd_step_");
  {
    at::AutoDispatchBelowADInplaceOrView below;
    op.call(x_adv, grad, x, step_size, eps, step_sizes, eps_rows, lower, upper, norm);
  }
  torch::autograd::increment_version(x_adv);
}

}  // namespace

TORCH_LIBRARY_IMPL(fastinterp, Autograd, m) {
  m.impl("pgd_step", &pgd_step);
  m.impl("pgd_step_", &pgd_step_);
}

}  // namespace fastinterp
