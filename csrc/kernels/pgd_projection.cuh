// The projected step for one pixel, and the threshold of the l1 projection.
#pragma once

#include "block.cuh"

namespace fastinterp {

// V is a number or, on the CPU, a vector of numbers, where a ? b : c selects element by element.

// clamp(value, lower, upper). NaN stays NaN, as in torch.clamp.
template <typename V>
FI_HD V bounded(V value, V lower, V upper) {
  value = value < lower ? lower : value;
  return value > upper ? upper : value;
}

// x_adv + step sign(grad), clamped to [x - eps, x + eps] and to [lower, upper]. sign(NaN) is 0, as
// in torch.sign; a NaN in x stays NaN.
template <typename V>
FI_HD V linf_point(V x_adv, V grad, V x, V step, V eps, V lower, V upper) {
  const V up = grad > V{} ? step : V{};
  const V down = grad < V{} ? step : V{};
  const V moved = bounded<V>(bounded<V>(x_adv + (up - down), x - eps, x + eps), lower, upper);
  return x == x ? moved : x;
}

// x + sign(delta) max(|delta| - threshold, 0), clamped to [lower, upper].
template <typename V>
FI_HD V land_point(V delta, V x, V threshold, V lower, V upper) {
  const V more = delta + threshold, less = delta - threshold;
  const V negative = more > V{} ? V{} : more, positive = less < V{} ? V{} : less;
  return bounded<V>(x + (delta < V{} ? negative : positive), lower, upper);
}

// The norm of a gradient as largest * root, which neither overflows nor underflows where the norm
// itself would. root is 0 if the gradient is zero or not finite; the step then moves nothing.
struct GradientNorm {
  double largest, root;

  FI_HD bool moves() const { return root > 0; }
  // Whether step / norm times an entry neither underflows nor overflows in float.
  FI_HD bool is_moderate() const { return largest == 1 && root > 1e-12 && root < 1e12; }
  // step * entry / norm
  FI_HD double part(double entry, double step) const { return step * (entry / largest / root); }
};

struct Above {
  double sum;
  int64_t number;
};

// The theta >= 0 with sum max(|delta| - theta, 0) = eps, for a delta whose l1 norm `size` exceeds
// eps (Duchi et al., 2008). Michelot's algorithm (1986) needs no sort: it shrinks the set of
// entries above the threshold until the set no longer changes. above(theta) is one pass over delta,
// which returns the sum and the number of the entries above theta.
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
