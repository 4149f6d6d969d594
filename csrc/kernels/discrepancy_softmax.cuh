// Eq. (8) from its ingredients, and its derivatives by them, for one image.
#pragma once

#include <cmath>

#include "block.cuh"

namespace fastinterp {

// In:  size[c] = S_c, the l1 distance of the maps of class c; logit[c] at x', overwritten.
// Out: the value D; emit(c, q, r) takes q = dD/dS_c and r = dD/dlogit[c] of every class.
// In double for every type of maps, so that nothing is rounded before the results are.
// `shared` holds one number for each thread.
template <typename Block, typename Emit>
FI_HD double coefficients(Block& block, double* shared, const double* size, double* logit,
                          int64_t classes, int64_t label, bool weighted, const Emit& emit) {
  if (label < 0 || label >= classes) {  // checked before where that is free; here it must show
    const double nan = static_cast<double>(NAN);
    block.each(classes, [&](int64_t c) { emit(c, nan, nan); });
    return nan;
  }
  const double true_size = size[label];
  if (!weighted) {
    block.each(classes, [&](int64_t c) { emit(c, c == label ? 1.0 : 0.0, 0.0); });
    return true_size;
  }
  const auto add = [](double a, double b) { return a + b; };
  const double top = reduce(
      block, shared, classes, static_cast<double>(-INFINITY),
      [&](int64_t c) { return c == label ? static_cast<double>(-INFINITY) : logit[c]; },
      [](double a, double b) { return a > b || a != a ? a : b; });
  // logit holds the likelihoods from here: a thread comes back to the classes that it wrote itself.
  const double whole = reduce(
      block, shared, classes, 0.0,
      [&](int64_t c) { return logit[c] = c == label ? 0.0 : exp(logit[c] - top); }, add);
  const double mean = reduce(
                          block, shared, classes, 0.0,
                          [&](int64_t c) { return c == label ? 0.0 : logit[c] * size[c]; }, add) /
                      whole;
  block.each(classes, [&](int64_t c) {
    const double half_p = 0.5 * logit[c] / whole;
    emit(c, c == label ? 0.5 : half_p, c == label ? 0.0 : half_p * (size[c] - mean));
  });
  return 0.5 * true_size + 0.5 * mean;
}

}  // namespace fastinterp
