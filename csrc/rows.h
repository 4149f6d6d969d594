// A batch of images as rows [N, d], for ops that do not depend on the shape of an image.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>

#include <optional>

#include "checks.h"

namespace fastinterp {

struct RowSettings {
  double step_size, eps;
  std::optional<at::Tensor> step_sizes, eps_rows;
  double lower, upper;
  int64_t norm;
};

inline void check_step(const at::Tensor& x_adv, const at::Tensor& grad, const at::Tensor& x,
                       const RowSettings& settings) {
  TORCH_CHECK(x.dim() >= 1 && x.is_floating_point(),
              "pgd_step: x must be floating point with a batch dimension.");
  check_like("pgd_step", x_adv, grad);
  check_like("pgd_step", x_adv, x);
  check_rows("pgd_step", "step_size", settings.step_sizes, x);
  check_rows("pgd_step", "eps", settings.eps_rows, x);
  TORCH_CHECK(settings.norm >= 0 && settings.norm <= 2, "pgd_step: norm must be 0, 1 or 2, got ",
              settings.norm, ".");
}

inline void check_pair_of_rows(const at::Tensor& a, const at::Tensor& b) {
  TORCH_CHECK(a.dim() == 2 && a.is_floating_point(),
              "kendall_tau: a must be floating point of shape [N, M], got ", a.sizes(), ".");
  check_like("kendall_tau", a, b);
}

// Whether each image is dense in memory, so that [N, d] is a view of the storage.
inline bool rows_are_dense(const at::Tensor& x) {
  if (x.is_contiguous()) return true;
  return x.is_non_overlapping_and_dense() && x.size(0) > 0 && x.stride(0) == x.numel() / x.size(0);
}

// Whether two tensors of the same shape have the same layout. Strides of axes of size 1 do not
// count.
inline bool lie_alike(const at::Tensor& a, const at::Tensor& b) {
  for (int64_t axis = 0; axis < a.dim(); ++axis) {
    if (a.size(axis) > 1 && a.stride(axis) != b.stride(axis)) return false;
  }
  return true;
}

// `read`, or a copy if it shares memory with x_adv, which the step writes.
inline at::Tensor apart_from(const at::Tensor& read, const at::Tensor& x_adv) {
  return read.is_alias_of(x_adv) ? read.clone() : read;
}

struct AlignedRows {
  at::Tensor x_adv, grad, x;
};

// The three tensors in one dense layout: that of x_adv if it is dense, else contiguous.
inline AlignedRows aligned_rows(const at::Tensor& x_adv, const at::Tensor& grad,
                                const at::Tensor& x) {
  if (rows_are_dense(x_adv)) {
    const auto like = [&](const at::Tensor& t) {
      if (lie_alike(t, x_adv)) return t;
      return at::empty_like(x_adv).copy_(t);
    };
    return {x_adv, like(grad), like(x)};
  }
  return {x_adv.contiguous(), grad.contiguous(), x.contiguous()};
}

}  // namespace fastinterp
