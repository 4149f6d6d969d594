// Eq. (8) for one image: D from the distances S_c and the logits, and its derivatives with respect
// to both.
#pragma once

#include <cmath>

#include "block.cuh"

namespace fastinterp {

// size[c] is S_c, the l1 distance of the maps of class c; logit[c] is the logit at x', which is
// overwritten. Returns D and calls emit(c, q, r) with q = dD/dS_c and r = dD/dlogit[c] for every
// class. Computes in double for every dtype. `shared` has space for one number per thread.
template <typename Block, typename Emit>
FI_HD double discrepancy_softmax(Block& block, double* shared, const double* size, double* logit,
                                 int64_t classes, int64_t label, bool weighted, const Emit& emit) {
  if (label < 0 || label >= classes) {  // not checked before on a GPU: the result must show it
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
  // From here on logit holds exp(logit - top). A thread reads only the classes that it wrote.
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
