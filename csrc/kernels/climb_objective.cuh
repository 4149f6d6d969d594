// What a climb maximises, from the class maps of one image in shared memory: cross-entropy, KL
// divergence and discrepancy, each times a weight, and the gradient by the maps.
#pragma once

#include <cmath>

#include "climb_layers.cuh"

namespace fastinterp {

constexpr int kMapParts = 8;  // partial sums of a class map

// Weights of the terms; a term whose weight is 0 reads nothing.
struct ClimbTerms {
  double cross_entropy, kl, discrepancy;
  bool weighted;  // eq. (8), else its 1-class form
};

// Where the objective computes, in shared memory. All of it is free again afterwards.
struct ClimbSums {
  double *sum, *size;  // [kMapParts, C]: of a class map, and of its distance from the map at x
  double *logit,
      *others;         // [C]; others is exp(logit - top) of the classes that are not the label's
  double *sign, *all;  // [C]: the gradient by S_c, and by the logit

  FI_HD static int64_t count(int64_t classes) { return (2 * kMapParts + 4) * classes; }
  FI_HD ClimbSums(double* at, int classes)
      : sum(at),
        size(at + kMapParts * classes),
        logit(at + 2 * kMapParts * classes),
        others(logit + classes),
        sign(others + classes),
        all(sign + classes) {}
};

// Softmax over all classes and over those that are not the label's, from one set of exponentials.
struct ClimbSoftmax {
  double others;  // sum of others[c]
  double mean;    // of S_c, weighted by others[c]
  double loss;    // cross-entropy

  FI_HD ClimbSoftmax(const ClimbSums& sums, int classes, int label, double top) {
    double of_sizes = 0;
    others = 0;
    for (int c = 0; c < classes; ++c) {
      others += sums.others[c];
      of_sizes += sums.others[c] * sums.size[c];
    }
    mean = of_sizes / others;
    const double margin = sums.logit[label] - top;
    loss = margin > 0 ? log1p(others * exp(-margin)) : log(others + exp(margin)) - margin;
  }
};

// The largest logit of the classes that are not the label's; NaN propagates.
FI_HD double climb_top(const double* logit, int classes, int label) {
  double top = static_cast<double>(-INFINITY);
  for (int c = 0; c < classes; ++c) {
    if (c != label && (logit[c] > top || logit[c] != logit[c])) top = logit[c];
  }
  return top;
}

// Replaces the class maps [u, C] by the gradient by them and calls emit(value). The logits are the
// means of the maps plus `bias`, if it is not null. `clean` are the maps at x, [u, C], and
// `log_p` the logarithms of the probabilities at x.
template <typename T, typename Block, typename Emit>
FI_HD void climb_objective(Block& block, T* memory, const ClimbMap& maps, const ClimbTerms& terms,
                           const T* clean, const T* bias, const T* log_p, int64_t label64,
                           const ClimbSums& sums, const Emit& emit) {
  const int classes = maps.channels, positions = maps.rows * maps.columns;
  const bool known = label64 >= 0 && label64 < classes;
  const int label = known ? static_cast<int>(label64) : 0;
  const bool compares = terms.discrepancy != 0;
  const auto map = [&](int p, int c) -> T& {
    return memory[maps.at(p / maps.columns, p % maps.columns) + c];
  };
  block.each(kMapParts * classes, [&](int64_t i) {
    const int part = static_cast<int>(i) / classes, c = static_cast<int>(i) % classes;
    double sum = 0, size = 0;
    for (int p = part; p < positions; p += kMapParts) {
      const T value = map(p, c);
      sum += static_cast<double>(value);
      if (compares) size += fabs(static_cast<double>(value - clean[p * classes + c]));
    }
    sums.sum[i] = sum;
    sums.size[i] = size;
  });
  block.each(classes, [&](int64_t c) {
    double sum = 0, size = 0;
    for (int part = 0; part < kMapParts; ++part) {
      sum += sums.sum[part * classes + c];
      size += sums.size[part * classes + c];
    }
    sums.logit[c] = sum / positions + (bias ? static_cast<double>(bias[c]) : 0.0);
    sums.size[c] = size / positions;  // of this thread alone: the other parts are read no more
  });
  block.each(classes, [&](int64_t c) {
    const double top = climb_top(sums.logit, classes, label);
    sums.others[c] = c == label ? 0.0 : exp(sums.logit[c] - top);
  });
  block.each(classes, [&](int64_t c) {
    const double top = climb_top(sums.logit, classes, label);
    const ClimbSoftmax softmax(sums, classes, label, top);
    // The logarithm of the probability that the network gives to class c.
    const double log_q = sums.logit[c] - sums.logit[label] - softmax.loss;
    double all = terms.cross_entropy * (c == label ? expm1(log_q) : exp(log_q)), sign = 0;
    if (terms.kl != 0) all += terms.kl * (exp(log_q) - exp(static_cast<double>(log_p[c])));
    if (compares && terms.weighted) {
      const double half_p = 0.5 * sums.others[c] / softmax.others;
      sign = terms.discrepancy * (c == label ? 0.5 : half_p);
      all += terms.discrepancy * (c == label ? 0.0 : half_p * (sums.size[c] - softmax.mean));
    } else if (compares) {
      sign = c == label ? terms.discrepancy : 0.0;
    }
    const double wrong = known ? 0.0 : static_cast<double>(NAN);
    sums.sign[c] = sign / positions + wrong;
    sums.all[c] = all / positions + wrong;
    if (c != label) return;
    double value = terms.cross_entropy * softmax.loss + wrong;
    for (int i = 0; terms.kl != 0 && i < classes; ++i) {
      const double log_q_i = sums.logit[i] - sums.logit[label] - softmax.loss;
      const double log_p_i = static_cast<double>(log_p[i]);
      value += terms.kl * exp(log_p_i) * (log_p_i - log_q_i);
    }
    const double distance = terms.weighted ? 0.5 * (sums.size[c] + softmax.mean) : sums.size[c];
    emit(value + (compares ? terms.discrepancy * distance : 0.0));
  });
  block.each(positions * classes, [&](int64_t i) {
    const int p = static_cast<int>(i) / classes, c = static_cast<int>(i) % classes;
    T& value = map(p, c);
    double gradient = sums.all[c];
    if (compares) {
      const T difference = value - clean[i];
      gradient += sums.sign[c] * ((difference > 0) - (difference < 0));
    }
    value = static_cast<T>(gradient);
  });
}

}  // namespace fastinterp
