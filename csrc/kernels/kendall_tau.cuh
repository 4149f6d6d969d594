// Kendall's tau-b of two rows, and the kernel that counts all pairs.
#pragma once

#include <cmath>

#include "block.cuh"
#include "products.cuh"

namespace fastinterp {

// tau-b of M entries: `agreement` is concordant minus discordant pairs, tied_a and tied_b count
// the pairs with equal a and with equal b. NaN where a row is constant or has no pair.
FI_HD double tau_b(int64_t length, int64_t agreement, int64_t tied_a, int64_t tied_b) {
  const int64_t pairs = length * (length - 1) / 2;
  const double a = static_cast<double>(pairs - tied_a), b = static_cast<double>(pairs - tied_b);
  if (!(a > 0) || !(b > 0)) return static_cast<double>(NAN);
  // Two square roots, as in scipy, and not one of the product: long rows then give exactly 1.
  const double tau = static_cast<double>(agreement) / sqrt(a) / sqrt(b);
  return tau > 1 ? 1 : (tau < -1 ? -1 : tau);
}

// Grid [N]: compares all M^2 / 2 pairs, which is faster than sorting for rows of a few thousand
// entries.
template <typename T>
struct KendallTauKernel {
  const T *a, *b;  // [N, M]
  int64_t length;  // M
  double* tau;     // [N]

  template <typename Block>
  FI_HD void operator()(Block& block, void* memory) const {
    int64_t* shared = static_cast<int64_t*>(memory);
    const T* row_a = a + block.x * length;
    const T* row_b = b + block.x * length;
    const auto add = [](int64_t x, int64_t y) { return x + y; };
    const auto sum = [&](const auto& pair) {
      return reduce(
          block, shared, length, int64_t{0},
          [&](int64_t i) {
            int64_t count = 0;
            for (int64_t j = 0; j < i; ++j) {
              count += pair(compare(row_a[i], row_a[j]), compare(row_b[i], row_b[j]));
            }
            return count;
          },
          add);
    };
    const int64_t agreement = sum([](int x, int y) { return x * y; });
    const int64_t tied_a = sum([](int x, int) { return x == 0 ? 1 : 0; });
    const int64_t tied_b = sum([](int, int y) { return y == 0 ? 1 : 0; });
    const int64_t strange = reduce(
        block, shared, length, int64_t{0},
        [&](int64_t i) {
          const bool nan = row_a[i] != row_a[i] || row_b[i] != row_b[i];
          return int64_t{nan};
        },
        add);
    block.each(1, [&](int64_t) {
      tau[block.x] = strange ? static_cast<double>(NAN) : tau_b(length, agreement, tied_a, tied_b);
    });
  }

  FI_HD static int compare(T x, T y) { return (x > y) - (x < y); }
};

}  // namespace fastinterp
