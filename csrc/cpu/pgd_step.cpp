// One projected ascent step on the CPU.
#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/SmallVector.h>
#include <torch/library.h>

#include <cmath>

#include "../checks.h"
#include "../kernels/pgd_projection.cuh"
#include "../rows.h"
#include "panels.h"

namespace fastinterp::cpu {
namespace {

// A number for all rows, or one for each.
class Radii {
 public:
  Radii(const char* name, double number, const std::optional<at::Tensor>& rows) : values_{number} {
    if (rows) {
      const auto numbers = rows->to(at::kDouble).contiguous();
      values_.assign(numbers.data_ptr<double>(), numbers.data_ptr<double>() + numbers.numel());
    }
    for (const double value : values_) {
      TORCH_CHECK_VALUE(value >= 0 && std::isfinite(value), "pgd_step: ", name,
                        " must be finite and >= 0, got ", value, ".");
    }
  }
  double operator[](int64_t row) const { return values_[values_.size() == 1 ? 0 : row]; }

 private:
  c10::SmallVector<double, 1> values_;
};

template <typename T>
struct Step {
  T* out;
  const T *x_adv, *grad, *x;
  int64_t rows, length;  // [N, d]
  Radii step_size, eps;
  double lower, upper;
};

template <typename T>
void linf(const Step<T>& s) {
  constexpr int64_t kGrain = 16 * 1024;
  at::parallel_for(0, s.rows * s.length, kGrain, [&](int64_t first, int64_t last) {
    while (first < last) {
      const int64_t row = first / s.length;
      const int64_t count = std::min(last, (row + 1) * s.length) - first;
      primitives<T>().linf_step(s.out + first, s.x_adv + first, s.grad + first, s.x + first, count,
                                static_cast<T>(s.step_size[row]), static_cast<T>(s.eps[row]),
                                static_cast<T>(s.lower), static_cast<T>(s.upper));
      first += count;
    }
  });
}

// Scaled by the largest entry: squares of very small or large numbers leave T's range.
template <typename T>
GradientNorm scaled_norm(const T* grad, int64_t count, int order) {
  double largest = 0, sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double size = std::abs(static_cast<double>(grad[i]));
    largest = largest > size || std::isnan(largest) ? largest : size;
  }
  if (!(largest > 0 && std::isfinite(largest))) return {1, 0};
  for (int64_t i = 0; i < count; ++i) {
    const double part = std::abs(static_cast<double>(grad[i])) / largest;
    sum += order == 2 ? part * part : part;
  }
  return {largest, order == 2 ? std::sqrt(sum) : sum};
}

// l2 (order 2) and l1 (order 1): the row's delta is built in `out` and then projected there.
template <typename T>
void ball(const Step<T>& s, int64_t row, int order) {
  const auto& vector = primitives<T>();
  const int64_t at = row * s.length;
  T* delta = s.out + at;
  const auto norm = [&](const T* values) {
    const double sum = vector.power_sum(values, s.length, order);
    return order == 2 ? std::sqrt(sum) : sum;
  };
  const double step = s.step_size[row];
  GradientNorm length{1, norm(s.grad + at)};
  if (length.is_moderate()) {
    vector.move(delta, s.x_adv + at, s.grad + at, s.x + at, s.length,
                static_cast<T>(step / length.root));
  } else {
    length = scaled_norm(s.grad + at, s.length, order);
    for (int64_t i = 0; i < s.length; ++i) {
      const double part = length.moves() ? length.part(s.grad[at + i], step) : 0.0;
      delta[i] = s.x_adv[at + i] + static_cast<T>(part) - s.x[at + i];
    }
  }

  const double size = norm(delta), eps = s.eps[row];
  double shrink = 1, threshold = 0;
  if (size > eps && order == 2) shrink = eps / size;
  if (size > eps && order == 1) {
    threshold = l1_threshold(size, s.length, eps, [&](double theta) {
      Above left;
      vector.above(delta, s.length, static_cast<T>(theta), &left.sum, &left.number);
      return left;
    });
  }
  vector.land(delta, delta, s.x + at, s.length, static_cast<T>(shrink), static_cast<T>(threshold),
              static_cast<T>(s.lower), static_cast<T>(s.upper));
}

at::Tensor compute(const at::Tensor& x_adv, const at::Tensor& grad, const at::Tensor& x,
                   const RowSettings& settings, at::Tensor out) {
  const auto a = aligned_rows(x_adv, grad, x);
  if (!out.defined() || !out.is_same(a.x_adv)) out = at::empty_like(a.x_adv);
  const auto run = [&]<typename T>(T) {
    const int64_t rows = x.size(0);
    const Step<T> step{out.data_ptr<T>(),
                       a.x_adv.data_ptr<T>(),
                       a.grad.data_ptr<T>(),
                       a.x.data_ptr<T>(),
                       rows,
                       rows ? x.numel() / rows : 0,
                       {"step_size", settings.step_size, settings.step_sizes},
                       {"eps", settings.eps, settings.eps_rows},
                       settings.lower,
                       settings.upper};
    if (x.numel() == 0) return;
    if (settings.norm == 0) return linf<T>(step);
    at::parallel_for(0, rows, 1, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) ball<T>(step, row, settings.norm == 1 ? 2 : 1);
    });
  };
  a.x.scalar_type() == at::kDouble ? run(double{}) : run(float{});
  return out;
}

at::Tensor pgd_step(const at::Tensor& x_adv, const at::Tensor& grad, const at::Tensor& x,
                    double step_size, double eps, const std::optional<at::Tensor>& step_sizes,
                    const std::optional<at::Tensor>& eps_rows, double lower, double upper,
                    int64_t norm) {
  const RowSettings settings{step_size, eps, step_sizes, eps_rows, lower, upper, norm};
  check_step(x_adv, grad, x, settings);
  const auto type = compute_type(x);
  const auto out =
      compute(as_type(x_adv, type), as_type(grad, type), as_type(x, type), settings, {});
  if (rows_are_dense(x_adv)) return as_type(out, x.scalar_type());
  return at::empty_like(x_adv).copy_(out);
}

void pgd_step_(at::Tensor x_adv, const at::Tensor& grad, const at::Tensor& x, double step_size,
               double eps, const std::optional<at::Tensor>& step_sizes,
               const std::optional<at::Tensor>& eps_rows, double lower, double upper,
               int64_t norm) {
  const RowSettings settings{step_size, eps, step_sizes, eps_rows, lower, upper, norm};
  check_step(x_adv, grad, x, settings);
  const auto type = compute_type(x);
  const auto in = as_type(x_adv, type);
  const auto result = compute(in, as_type(apart_from(grad, x_adv), type),
                              as_type(apart_from(x, x_adv), type), settings, in);
  if (!result.is_same(x_adv)) x_adv.copy_(result);
}

}  // namespace

TORCH_LIBRARY_IMPL(fastinterp, CPU, m) {
  m.impl("pgd_step", &pgd_step);
  m.impl("pgd_step_", &pgd_step_);
}

}  // namespace fastinterp::cpu
