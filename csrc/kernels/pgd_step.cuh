// One projected gradient ascent step on rows [N, d]. out may be x_adv: the thread that writes an
// element reads it first.
#pragma once

#include <cmath>

#include "maps.cuh"
#include "pgd_projection.cuh"
#include "products.cuh"

namespace fastinterp {

constexpr int kThreadElements = 8;  // elements of a thread in the linf step

template <typename T>
struct PgdStepParams {
  T* out;
  const T *x_adv, *grad, *x;
  int64_t rows, length;  // [N, d]
  double step_number, eps_number;
  const T *step_rows, *eps_rows;  // null, or step_count / eps_count numbers (1 or N)
  int64_t step_count, eps_count;
  double lower, upper;

  FI_HD double step_size(int64_t row) const {
    return step_rows ? static_cast<double>(step_rows[step_count == 1 ? 0 : row]) : step_number;
  }
  FI_HD double eps(int64_t row) const {
    return eps_rows ? static_cast<double>(eps_rows[eps_count == 1 ? 0 : row]) : eps_number;
  }
  // Whether rows can be read and written in packs of `width`: aligned, with no remainder.
  bool has_packs(int width) const {
    const auto bytes = static_cast<uintptr_t>(width) * sizeof(T);
    const auto aligned = [&](const T* p) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; };
    return length % width == 0 && aligned(out) && aligned(x_adv) && aligned(grad) && aligned(x);
  }
  // NaN for a negative or NaN step_size or eps, which nothing checks before a launch on a GPU:
  // added to every pixel, it makes the mistake visible.
  FI_HD double poison(int64_t row) const {
    return step_size(row) >= 0 && eps(row) >= 0 ? 0.0 : static_cast<double>(NAN);
  }
};

constexpr int kPackBytes = 16;  // the widest access of a GPU

// The linf step. Grid [N, chunks of kThreads * kThreadElements]. Width > 1 needs has_packs(Width).
template <typename T, int Width>
struct PgdStepLinfKernel : PgdStepParams<T> {
  template <typename Block>
  FI_HD void operator()(Block& block, void*) const {
    using A = AccType<T>;
    using Packed = Pack<T, Width>;
    const int64_t row = block.x, first = block.y * kThreads * kThreadElements;
    const int64_t left = this->length - first;
    const int64_t count = left < kThreads * kThreadElements ? left : kThreads * kThreadElements;
    const A step = static_cast<A>(this->step_size(row)), eps = static_cast<A>(this->eps(row));
    const A lower = static_cast<A>(this->lower), upper = static_cast<A>(this->upper);
    const A poison = static_cast<A>(this->poison(row));
    block.each(count / Width, [&](int64_t i) {
      const int64_t at = row * this->length + first + i * Width;
      const auto x_adv = *reinterpret_cast<const Packed*>(this->x_adv + at);
      const auto grad = *reinterpret_cast<const Packed*>(this->grad + at);
      const auto x = *reinterpret_cast<const Packed*>(this->x + at);
      Packed moved;
      FI_UNROLL
      for (int j = 0; j < Width; ++j) {
        const A point =
            linf_point<A>(static_cast<A>(x_adv.values[j]), static_cast<A>(grad.values[j]),
                          static_cast<A>(x.values[j]), step, eps, lower, upper);
        moved.values[j] = static_cast<T>(point + poison);
      }
      *reinterpret_cast<Packed*>(this->out + at) = moved;
    });
  }
};

// The l2 step (Order 2) or the l1 step (Order 1). Grid [N]: one block per image.
template <typename T, int Order>
struct PgdStepBallKernel : PgdStepParams<T> {
  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    using A = AccType<T>;
    double* shared = static_cast<double*>(memory);
    const int64_t row = block.x, begin = row * this->length;
    const auto add = [](double a, double b) { return a + b; };
    const auto power = [](double v) { return Order == 2 ? v * v : (v < 0 ? -v : v); };
    const auto norm = [&](const auto& value) {
      const double sum =
          reduce(block, shared, this->length, 0.0, [&](int64_t i) { return power(value(i)); }, add);
      return Order == 2 ? sqrt(sum) : sum;
    };

    const auto entry = [&](int64_t i) { return static_cast<double>(this->grad[begin + i]); };
    GradientNorm length{1, norm(entry)};
    if (!length.is_moderate()) {
      length.largest = reduce(
          block, shared, this->length, 0.0,
          [&](int64_t i) { return entry(i) < 0 ? -entry(i) : entry(i); },
          [](double a, double b) { return a > b || a != a ? a : b; });  // NaN propagates
      const bool moves = length.largest > 0 && length.largest < static_cast<double>(INFINITY);
      length.root = moves ? norm([&](int64_t i) { return entry(i) / length.largest; }) : 0.0;
    }
    const bool moderate = length.is_moderate(), moves = length.moves();
    const double step = this->step_size(row);
    const A scale = static_cast<A>(moderate ? step / length.root : 0.0);
    const auto delta = [&](int64_t i) {
      A part = scale * static_cast<A>(this->grad[begin + i]);
      if (!moderate) part = moves ? static_cast<A>(length.part(entry(i), step)) : A(0);
      return static_cast<A>(this->x_adv[begin + i]) + part - static_cast<A>(this->x[begin + i]);
    };

    const double size = norm(delta), eps = this->eps(row);
    A shrink = 1, threshold = 0;
    if (size > eps && Order == 2) shrink = static_cast<A>(eps / size);
    if (size > eps && Order == 1) {
      threshold = static_cast<A>(l1_threshold(size, this->length, eps, [&](double theta) {
        const auto above = [&](int64_t i) {
          const double v = power(delta(i));
          return v > theta ? v : 0.0;
        };
        const double sum = reduce(block, shared, this->length, 0.0, above, add);
        const double number = reduce(
            block, shared, this->length, 0.0, [&](int64_t i) { return above(i) > 0 ? 1.0 : 0.0; },
            add);
        return Above{sum, static_cast<int64_t>(number)};
      }));
    }
    const A lower = static_cast<A>(this->lower), upper = static_cast<A>(this->upper);
    const A poison = static_cast<A>(this->poison(row));
    block.each(this->length, [&](int64_t i) {
      const A moved = land_point<A>(shrink * delta(i), static_cast<A>(this->x[begin + i]),
                                    threshold, lower, upper);
      this->out[begin + i] = static_cast<T>(moved + poison);
    });
  }
};

}  // namespace fastinterp
