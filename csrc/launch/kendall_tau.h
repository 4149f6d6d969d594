// Kendall's tau-b on a GPU: check, allocate, launch.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include "../kernels/kendall_tau.cuh"
#include "../rows.h"
#include "launcher.h"

namespace fastinterp {

// Longer rows use the CPU's O(M log M) kernel: comparing all pairs would take longer.
constexpr int64_t kLongestRow = 8192;

template <typename Launcher>
at::Tensor launch_kendall_tau(const at::Tensor& a, const at::Tensor& b) {
  check_pair_of_rows(a, b);
  if (a.size(1) > kLongestRow) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("fastinterp::kendall_tau", "")
                               .typed<at::Tensor(const at::Tensor&, const at::Tensor&)>();
    return op.call(a.cpu(), b.cpu()).to(a.device());
  }
  const auto x = a.contiguous(), y = b.contiguous();
  auto tau = at::empty({x.size(0)}, x.options().dtype(at::kDouble));
  FI_DISPATCH(x.scalar_type(), [&] {
    using T = scalar_t;
    const KendallTauKernel<T> program{x.data_ptr<T>(), y.data_ptr<T>(), x.size(1),
                                      tau.data_ptr<double>()};
    Launcher()(x.size(0), 1, 1, kThreads * sizeof(int64_t), program);
  });
  return tau;
}

}  // namespace fastinterp
