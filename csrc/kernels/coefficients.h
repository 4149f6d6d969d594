// Eq. (8) from its ingredients, and its derivatives by them, for one image.
#pragma once

#include <cmath>

#include "block.h"

namespace fastinterp {

// In:  size[c] = S_c, the l1 distance of the maps of class c; logit[c] at x'.
// Out: the value D; q[c] = dD/dS_c and r[c] = dD/dlogit[c]. q and r may be size and logit.
// `shared` holds one T for each thread.
template <typename T, typename Block>
FI_HD T coefficients(Block& block, T* shared, const T* size, const T* logit, int64_t classes,
                     int64_t label, bool weighted, T* q, T* r) {
  if (label < 0 || label >= classes) {  // checked before where that is free; here it must show
    const T nan = static_cast<T>(NAN);
    block.each(classes, [&](int64_t c) { q[c] = r[c] = nan; });
    return nan;
  }
  const T true_size = size[label];
  if (!weighted) {
    block.each_thread([](int) {});  // everybody has read true_size
    block.each(classes, [&](int64_t c) {
      q[c] = c == label ? T(1) : T(0);
      r[c] = T(0);
    });
    return true_size;
  }
  const auto add = [](T a, T b) { return a + b; };
  const T top = reduce(
      block, shared, classes, static_cast<T>(-INFINITY),
      [&](int64_t c) { return c == label ? static_cast<T>(-INFINITY) : logit[c]; },
      [](T a, T b) { return a > b || a != a ? a : b; });
  // r holds the likelihoods meanwhile: a thread comes back to the classes that it wrote itself.
  const T whole = reduce(
      block, shared, classes, T(0),
      [&](int64_t c) { return r[c] = c == label ? T(0) : exp(logit[c] - top); }, add);
  const T mean = reduce(
                     block, shared, classes, T(0),
                     [&](int64_t c) { return c == label ? T(0) : r[c] * size[c]; }, add) /
                 whole;
  block.each(classes, [&](int64_t c) {
    const T half_p = T(0.5) * r[c] / whole;
    const T excess = size[c] - mean;
    q[c] = c == label ? T(0.5) : half_p;
    r[c] = c == label ? T(0) : half_p * excess;
  });
  return T(0.5) * true_size + T(0.5) * mean;
}

}  // namespace fastinterp
