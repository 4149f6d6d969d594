// The projected step on a GPU: check, allocate, launch.
#pragma once

#include <ATen/ops/empty_like.h>

#include "../kernels/pgd_step.cuh"
#include "../rows.h"
#include "launcher.h"

namespace fastinterp {

template <typename T>
PgdStepParams<T> pgd_step_params(const at::Tensor& out, const AlignedRows& in,
                                 const RowSettings& settings, const at::Tensor& step_sizes,
                                 const at::Tensor& eps_rows) {
  const int64_t rows = in.x.size(0);
  const auto numbers = [](const at::Tensor& t) { return t.defined() ? t.data_ptr<T>() : nullptr; };
  const auto count = [](const at::Tensor& t) { return t.defined() ? t.numel() : int64_t{0}; };
  return {out.data_ptr<T>(),
          in.x_adv.data_ptr<T>(),
          in.grad.data_ptr<T>(),
          in.x.data_ptr<T>(),
          rows,
          in.x.numel() / rows,
          settings.step_size,
          settings.eps,
          numbers(step_sizes),
          numbers(eps_rows),
          count(step_sizes),
          count(eps_rows),
          settings.lower,
          settings.upper};
}

template <int Order, typename Launcher, typename T>
void launch_ball_step(const Launcher& launch, const PgdStepParams<T>& args) {
  constexpr int kWidth = kPackBytes / sizeof(T);
  const auto run = [&](auto program) {
    program.kept = args.length * static_cast<int64_t>(sizeof(AccType<T>)) <= kKeptBytes;
    launch(args.rows, 1, 1, program.shared_bytes(args.length, program.kept), program);
  };
  if (args.has_packs(kWidth)) {
    run(PgdStepBallKernel<T, Order, kWidth>{args, false});
  } else {
    run(PgdStepBallKernel<T, Order, 1>{args, false});
  }
}

template <typename Launcher>
void step_into(const at::Tensor& out, const AlignedRows& in, const RowSettings& settings) {
  if (in.x.numel() == 0) return;
  const auto contiguous = [](const std::optional<at::Tensor>& t) {
    return t ? t->contiguous() : at::Tensor();
  };
  const auto step_sizes = contiguous(settings.step_sizes), eps_rows = contiguous(settings.eps_rows);
  FI_DISPATCH(in.x.scalar_type(), [&] {
    using T = scalar_t;
    const Launcher launch;
    const auto args = pgd_step_params<T>(out, in, settings, step_sizes, eps_rows);
    constexpr int64_t kChunk = kThreads * kThreadElements;
    if (settings.norm == 0) {
      constexpr int kWidth = kPackBytes / sizeof(T);
      const int64_t chunks = (args.length + kChunk - 1) / kChunk;
      if (args.has_packs(kWidth)) {
        launch(args.rows, chunks, 1, 0, PgdStepLinfKernel<T, kWidth>{args});
      } else {
        launch(args.rows, chunks, 1, 0, PgdStepLinfKernel<T, 1>{args});
      }
    } else if (settings.norm == 1) {
      launch_ball_step<2>(launch, args);
    } else {
      launch_ball_step<1>(launch, args);
    }
  });
}

template <typename Launcher>
at::Tensor launch_pgd_step(const at::Tensor& x_adv, const at::Tensor& grad, const at::Tensor& x,
                           double step_size, double eps,
                           const std::optional<at::Tensor>& step_sizes,
                           const std::optional<at::Tensor>& eps_rows, double lower, double upper,
                           int64_t norm) {
  const RowSettings settings{step_size, eps, step_sizes, eps_rows, lower, upper, norm};
  check_step(x_adv, grad, x, settings);
  const auto in = aligned_rows(x_adv, grad, x);
  const auto out = at::empty_like(in.x_adv);
  step_into<Launcher>(out, in, settings);
  return rows_are_dense(x_adv) ? out : at::empty_like(x_adv).copy_(out);
}

template <typename Launcher>
void launch_pgd_step_(at::Tensor x_adv, const at::Tensor& grad, const at::Tensor& x,
                      double step_size, double eps, const std::optional<at::Tensor>& step_sizes,
                      const std::optional<at::Tensor>& eps_rows, double lower, double upper,
                      int64_t norm) {
  const RowSettings settings{step_size, eps, step_sizes, eps_rows, lower, upper, norm};
  check_step(x_adv, grad, x, settings);
  const auto in = aligned_rows(x_adv, apart_from(grad, x_adv), apart_from(x, x_adv));
  step_into<Launcher>(in.x_adv, in, settings);
  if (!in.x_adv.is_same(x_adv)) x_adv.copy_(in.x_adv);
}

}  // namespace fastinterp
