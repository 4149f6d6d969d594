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

constexpr int kPackBytes = 16;             // the widest access of a GPU
constexpr int64_t kKeptBytes = 46 * 1024;  // a row of a ball step is kept up to this size

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

// The l2 step (Order 2) or the l1 step (Order 1). Grid [N]: one block per image. Width > 1 needs
// has_packs(Width). A row that fits is kept in shared memory: only the first of several passes over
// delta = x_adv + step - x then reads x_adv, grad and x.
template <typename T, int Order, int Width>
struct PgdStepBallKernel : PgdStepParams<T> {
  using A = AccType<T>;
  using Packed = Pack<T, Width>;
  bool kept;

  static int64_t shared_bytes(int64_t length, bool kept) {
    const int64_t of_row = kept ? length * static_cast<int64_t>(sizeof(A)) : 0;
    return kThreads * static_cast<int64_t>(sizeof(double)) + of_row;
  }

  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    double* shared = static_cast<double*>(memory);
    A* row = reinterpret_cast<A*>(shared + kThreads);  // [Width, packs], free of bank conflicts
    const int64_t begin = block.x * this->length, packs = this->length / Width;
    const GradientNorm length = gradient_norm(block, shared, begin);
    const double step = this->step_size(block.x), eps = this->eps(block.x);
    const auto compute = [&](int64_t pack) { return delta(begin + pack * Width, length, step); };
    const auto look_up = [&](int64_t pack) {
      if (!kept) return compute(pack);
      Pack<A, Width> found;
      FI_UNROLL
      for (int j = 0; j < Width; ++j) found.values[j] = row[j * packs + pack];
      return found;
    };

    const auto measure = [&](int64_t pack) {
      const auto found = compute(pack);
      double sum = 0;
      FI_UNROLL
      for (int j = 0; j < Width; ++j) {
        sum += power(found.values[j]);
        if (kept) row[j * packs + pack] = found.values[j];
      }
      return sum;
    };
    const double powers = reduce(block, shared, packs, 0.0, measure, add);
    const double size = Order == 2 ? sqrt(powers) : powers;
    A shrink = 1, threshold = 0;
    if (size > eps && Order == 2) shrink = static_cast<A>(eps / size);
    if (size > eps && Order == 1) {
      threshold = static_cast<A>(l1_threshold(size, this->length, eps, [&](double theta) {
        return above(block, shared, packs, look_up, theta);
      }));
    }
    const A lower = static_cast<A>(this->lower), upper = static_cast<A>(this->upper);
    const A poison = static_cast<A>(this->poison(block.x));
    block.each(packs, [&](int64_t pack) {
      const int64_t at = begin + pack * Width;
      const auto moved = look_up(pack);
      const Packed x = load(this->x + at);
      Packed out;
      FI_UNROLL
      for (int j = 0; j < Width; ++j) {
        const A landed = land_point<A>(shrink * moved.values[j], static_cast<A>(x.values[j]),
                                       threshold, lower, upper);
        out.values[j] = static_cast<T>(landed + poison);
      }
      *reinterpret_cast<Packed*>(this->out + at) = out;
    });
  }

 private:
  FI_HD static Packed load(const T* from) { return *reinterpret_cast<const Packed*>(from); }
  FI_HD static double add(double a, double b) { return a + b; }
  FI_HD static double power(double v) { return Order == 2 ? v * v : (v < 0 ? -v : v); }

  template <typename Block>
  FI_HD GradientNorm gradient_norm(Block& block, double* shared, int64_t begin) const {
    // Combines part(entry) of all entries of the gradient.
    const auto over = [&](const auto& part, const auto& combine) {
      const auto of_pack = [&](int64_t pack) {
        const Packed grad = load(this->grad + begin + pack * Width);
        double found = 0;
        FI_UNROLL
        for (int j = 0; j < Width; ++j) {
          found = combine(found, part(static_cast<double>(grad.values[j])));
        }
        return found;
      };
      return reduce(block, shared, this->length / Width, 0.0, of_pack, combine);
    };
    const auto root = [](double sum) { return Order == 2 ? sqrt(sum) : sum; };
    GradientNorm length{1, root(over([](double v) { return power(v); }, add))};
    if (length.is_moderate()) return length;
    length.largest = over([](double v) { return v < 0 ? -v : v; },
                          [](double a, double b) { return a > b || a != a ? a : b; });  // NaN stays
    const bool moves = length.largest > 0 && length.largest < static_cast<double>(INFINITY);
    length.root =
        moves ? root(over([&](double v) { return power(v / length.largest); }, add)) : 0.0;
    return length;
  }

  FI_HD Pack<A, Width> delta(int64_t at, const GradientNorm& length, double step) const {
    const Packed x_adv = load(this->x_adv + at), grad = load(this->grad + at);
    const Packed x = load(this->x + at);
    const bool moderate = length.is_moderate(), moves = length.moves();
    const A scale = static_cast<A>(moderate ? step / length.root : 0.0);
    Pack<A, Width> found;
    FI_UNROLL
    for (int j = 0; j < Width; ++j) {
      A part = scale * static_cast<A>(grad.values[j]);
      if (!moderate) {
        const auto entry = static_cast<double>(grad.values[j]);
        part = moves ? static_cast<A>(length.part(entry, step)) : A(0);
      }
      found.values[j] = static_cast<A>(x_adv.values[j]) + part - static_cast<A>(x.values[j]);
    }
    return found;
  }

  // The sum and the number of the sizes above theta.
  template <typename Block, typename LookUp>
  FI_HD Above above(Block& block, double* shared, int64_t packs, const LookUp& look_up,
                    double theta) const {
    Local<Block, double, 2> found(block);
    block.each_thread([&](int t) {
      double sum = 0, number = 0;
      for (int64_t pack = t; pack < packs; pack += block.threads()) {
        const auto moved = look_up(pack);
        FI_UNROLL
        for (int j = 0; j < Width; ++j) {
          const double v = power(moved.values[j]);
          sum += v > theta ? v : 0.0;
          number += v > theta ? 1.0 : 0.0;
        }
      }
      found.at(t, 0) = sum;
      found.at(t, 1) = number;
    });
    const auto total = [&](int which) {
      return block.reduce(shared, 0.0, [&](int t) { return found.at(t, which); }, add);
    };
    const double sum = total(0);
    return {sum, static_cast<int64_t>(total(1))};
  }
};

}  // namespace fastinterp
