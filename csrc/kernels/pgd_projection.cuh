// One pixel of a projected step, and the l1 projection's threshold.
#pragma once

#include "block.cuh"

namespace fastinterp {

// V is a number or, on the CPU, a vector of them: comparisons then choose element by element.

// NaN comes through, as in torch.clamp, because no comparison with it holds.
template <typename V>
FI_HD V bounded(V value, V lower, V upper) {
  value = value < lower ? lower : value;
  return value > upper ? upper : value;
}

// x_adv + step sign(grad), into [x - eps, x + eps] and [lower, upper]. A NaN in grad moves
// nothing, as in torch.sign; a NaN in x stays one.
template <typename V>
FI_HD V linf_point(V x_adv, V grad, V x, V step, V eps, V lower, V upper) {
  const V up = grad > V{} ? step : V{};
  const V down = grad < V{} ? step : V{};
  const V moved = bounded<V>(bounded<V>(x_adv + (up - down), x - eps, x + eps), lower, upper);
  return x == x ? moved : x;
}

// x + delta, with `threshold` taken off delta's size but not below zero, into [lower, upper].
template <typename V>
FI_HD V land_point(V delta, V x, V threshold, V lower, V upper) {
  const V more = delta + threshold, less = delta - threshold;
  const V negative = more > V{} ? V{} : more, positive = less < V{} ? V{} : less;
  return bounded<V>(x + (delta < V{} ? negative : positive), lower, upper);
}

// The norm of a gradient, as largest * root: neither leaves the range of a double where their
// product would. root 0 stands for a gradient that moves nothing: all zeros, or not finite.
struct GradientNorm {
  double largest, root;

  FI_HD bool moves() const { return root > 0; }
  // Whether step / norm times an entry can be computed in float without underflow or overflow.
  FI_HD bool is_moderate() const { return largest == 1 && root > 1e-12 && root < 1e12; }
  // The entry's part of a step of that length.
  FI_HD double part(double entry, double step) const { return step * (entry / largest / root); }
};

struct Above {
  double sum;
  int64_t number;
};

// The theta >= 0 with sum max(|delta| - theta, 0) = eps, for a delta whose l1 norm `size` exceeds
// eps (Duchi et al., 2008). Instead of sorting, the set of entries above the threshold is shrunk
// until it no longer changes (Michelot, 1986); each round needs one pass, `above(theta)`, which
// gives the sum and the number of the entries above theta.
template <typename Pass>
FI_HD double l1_threshold(double size, int64_t count, double eps, const Pass& above) {
  double theta = (size - eps) / static_cast<double>(count);
  for (int64_t number = count; number > 0;) {
    const Above left = above(theta);
    if (left.number == 0 || left.number >= number) break;
    number = left.number;
    theta = (left.sum - eps) / static_cast<double>(number);
  }
  return theta;
}

}  // namespace fastinterp
