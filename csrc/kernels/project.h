// One pixel of a projected step, and the l1 projection's threshold.
#pragma once

#include "block.h"

namespace fastinterp {

// NaN comes through, as in torch.clamp, because no comparison with it holds.
template <typename T>
FI_HD T bounded(T value, T lower, T upper) {
  value = value < lower ? lower : value;
  return value > upper ? upper : value;
}

// x_adv + step sign(grad), into [x - eps, x + eps] and [lower, upper]. A NaN in grad moves
// nothing, as in torch.sign.
template <typename T>
FI_HD T linf_point(T x_adv, T grad, T x, T step, T eps, T lower, T upper) {
  const T up = grad > 0 ? step : T(0);
  const T down = grad < 0 ? step : T(0);
  return bounded<T>(bounded<T>(x_adv + (up - down), x - eps, x + eps), lower, upper);
}

// x + delta, with `threshold` taken off delta's size but not below zero, into [lower, upper].
template <typename T>
FI_HD T land_point(T delta, T x, T threshold, T lower, T upper) {
  const T less = delta < 0 ? delta + threshold : delta - threshold;
  const bool through_zero = delta < 0 ? less > 0 : less < 0;
  return bounded<T>(x + (through_zero ? T(0) : less), lower, upper);
}

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
