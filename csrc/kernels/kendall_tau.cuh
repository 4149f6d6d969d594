// Kendall's tau-b of two rows, and the kernel that counts all pairs.
#pragma once

#include <cmath>

#include "block.cuh"

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
// entries. Rows have at most 2^16 entries, so that the number of pairs fits into 32 bits.
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
    const int count = static_cast<int>(length), threads = block.threads();
    // Of a thread's pairs (i, j < i): agreement; ties of a, and 2^32 times ties of b; NaNs.
    Local<Block, int64_t, 3> counts(block);
    block.each_thread([&](int t) {
      int64_t agreement = 0, ties_a = 0, ties_b = 0, nans = 0;
      for (int i = t; i < count; i += threads) {
        const T own_a = row_a[i], own_b = row_b[i];
        nans += own_a != own_a || own_b != own_b;
        for (int j = 0; j < i; ++j) {
          const int x = compare(own_a, row_a[j]), y = compare(own_b, row_b[j]);
          agreement += x * y;
          ties_a += x == 0;
          ties_b += y == 0;
        }
      }
      counts.at(t, 0) = agreement;
      counts.at(t, 1) = ties_a + (ties_b << 32);
      counts.at(t, 2) = nans;
    });
    const auto sum = [&](int which) {
      return block.reduce(
          shared, int64_t{0}, [&](int t) { return counts.at(t, which); },
          [](int64_t x, int64_t y) { return x + y; });
    };
    const int64_t agreement = sum(0), ties = sum(1), nans = sum(2);
    block.each(1, [&](int64_t) {
      tau[block.x] =
          nans ? static_cast<double>(NAN) : tau_b(length, agreement, ties & 0xffffffff, ties >> 32);
    });
  }

  FI_HD static int compare(T x, T y) { return (x > y) - (x < y); }
};

}  // namespace fastinterp
