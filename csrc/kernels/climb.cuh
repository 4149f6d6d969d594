// All steps of projected gradient ascent in the linf ball, for networks that are stacks of
// convolutions with ReLUs between them and whose last convolution gives class maps. A block has an
// image: weights, maps, gradients and x' stay in its shared memory from the first step to the last.
#pragma once

#include "climb_layers.cuh"
#include "climb_objective.cuh"
#include "pgd_step.cuh"

namespace fastinterp {

constexpr int kClimbLayers = 6;  // the most convolutions

// The layout of shared memory, in numbers, and how the work is divided.
struct ClimbPlan {
  int layers;
  ClimbLayer layer[kClimbLayers];
  ClimbMap map[kClimbLayers + 1];  // map[0] is x', map[l + 1] what layer l gives
  int x, clean, bias, log_p;       // what does not change either
  int scratch;                     // behind all of these
  int64_t bytes;
};

// Grid [N].
template <typename T>
struct ClimbKernel {
  ClimbPlan plan;
  PgdStepParams<T> pgd;  // pgd.x_adv is z, or the draws of a random start; pgd.grad is not read
  bool drawn;            // the start is x + eps (2 draw - 1), clamped to the range
  int64_t steps;
  const T *weight[kClimbLayers], *layer_bias[kClimbLayers];  // [out, in, k, k'], [out]
  ClimbTerms terms;
  const int64_t* labels;          // [N]
  const T *bias, *clean, *log_p;  // [C], [N, C, u], [N, C]; null where not needed
  T *grad, *value;  // at the last x' but one: [N, ...], [N]; NaN if a gradient was not finite

  template <typename Block>
  FI_HD void operator()(Block& block, void* shared) const {
    T* memory = static_cast<T*>(shared);
    load(block, memory);
    const int64_t n = block.x;
    const T step = static_cast<T>(pgd.step_size(n)), eps = static_cast<T>(pgd.eps(n));
    const T lower = static_cast<T>(pgd.lower), upper = static_cast<T>(pgd.upper);
    Local<Block, T, 1> watched(block);  // 0, or NaN once a gradient was not finite
    for (int64_t i = 0; i < steps; ++i) {
      const bool last = i + 1 == steps;
      for (int l = 0; l < plan.layers; ++l) forward(block, memory, l);
      climb_objective(block, memory, plan.map[plan.layers], terms, memory + plan.clean,
                      bias ? memory + plan.bias : nullptr, memory + plan.log_p, labels[n],
                      ClimbSums(at_double(memory), plan.map[plan.layers].channels),
                      [&](double found) {
                        if (last) value[n] = static_cast<T>(found);
                      });
      const auto finish = [&](int t, int l, int row, int column, int channel, T gradient) {
        const ClimbMap& maps = plan.map[l];
        T& at = memory[maps.at(row, column) + channel];
        if (l > 0) {  // maps that come from a ReLU, overwritten by the gradient by what it read
          at = at <= 0 ? T(0) : gradient;
          return;
        }
        const int place = (channel * maps.rows + row) * maps.columns + column;
        watched.at(t, 0) += 0 * gradient;
        if (last) grad[n * pgd.length + place] = gradient;
        at = linf_point<T>(at, gradient, memory[plan.x + place], step, eps, lower, upper);
      };
      for (int l = plan.layers - 1; l >= 0; --l) backward(block, memory, l, finish);
    }
    const T wrong = block.reduce(
        scratch(memory), T(0), [&](int t) { return watched.at(t, 0); },
        [](T a, T b) { return a + b; });
    store(block, memory, wrong);
  }

 private:
  FI_HD T* scratch(T* memory) const { return memory + plan.scratch; }
  FI_HD double* at_double(T* memory) const { return reinterpret_cast<double*>(scratch(memory)); }

  // f(place, at): each pixel's place in an image [channels, rows, columns] and in shared memory.
  template <typename Block, typename F>
  FI_HD void each_pixel(Block& block, const F& f) const {
    const ClimbMap& images = plan.map[0];
    block.each(pgd.length, [&](int64_t i) {
      const int place = static_cast<int>(i), column = place % images.columns;
      const int row = place / images.columns % images.rows;
      const int channel = place / (images.columns * images.rows);
      f(place, images.at(row, column) + channel);
    });
  }

  template <typename Block>
  FI_HD void load(Block& block, T* memory) const {
    block.each(plan.scratch, [&](int64_t i) { memory[i] = T(0); });
    // Zeros beside the maps stay; gaps between weights are read, though what is made of them is
    // not.
    for (int l = 0; l < plan.layers; ++l) {
      const ClimbLayer& layer = plan.layer[l];
      const int taps = layer.kernel_rows * layer.kernel_columns, in = plan.map[l].channels;
      const int out = plan.map[l + 1].channels;
      block.each(out * in * taps, [&](int64_t i) {
        const int place = static_cast<int>(i), tap = place % taps;
        memory[layer.weight + tap * layer.tap_pitch + place / taps] = weight[l][i];
      });
      block.each(out, [&](int64_t i) { memory[layer.bias + i] = layer_bias[l][i]; });
    }
    const int64_t n = block.x;
    const ClimbMap& top = plan.map[plan.layers];
    const int classes = top.channels, positions = top.rows * top.columns;
    if (clean) {
      block.each(classes * positions, [&](int64_t i) {
        const int c = static_cast<int>(i) / positions, p = static_cast<int>(i) % positions;
        memory[plan.clean + p * classes + c] = clean[n * classes * positions + i];
      });
    }
    if (bias) block.each(classes, [&](int64_t c) { memory[plan.bias + c] = bias[c]; });
    if (log_p) {
      block.each(classes, [&](int64_t c) { memory[plan.log_p + c] = log_p[n * classes + c]; });
    }
    const T eps = static_cast<T>(pgd.eps(n));
    const T lower = static_cast<T>(pgd.lower), upper = static_cast<T>(pgd.upper);
    each_pixel(block, [&](int place, int at) {
      const T x = pgd.x[n * pgd.length + place], start = pgd.x_adv[n * pgd.length + place];
      memory[plan.x + place] = x;
      memory[at] = drawn ? bounded<T>(x + eps * (2 * start - 1), lower, upper) : start;
    });
  }

  template <typename Block>
  FI_HD void forward(Block& block, T* memory, int l) const {
    const ClimbLayer& layer = plan.layer[l];
    const ClimbMap& out = plan.map[l + 1];
    const bool last = l + 1 == plan.layers;
    const auto finish = [&](int, int row, int column, int channel, T sum) {
      const T value = sum + memory[layer.bias + channel];
      // ReLU; NaN stays NaN.
      memory[out.at(row, column) + channel] = !last && value < 0 ? T(0) : value;
    };
    if (layer.forward_packs) {
      climb_forward<4>(block, memory, scratch(memory), layer, plan.map[l], out, finish);
    } else {
      climb_forward<1>(block, memory, scratch(memory), layer, plan.map[l], out, finish);
    }
  }

  template <typename Block, typename Finish>
  FI_HD void backward(Block& block, T* memory, int l, const Finish& finish_of) const {
    const ClimbLayer& layer = plan.layer[l];
    const ClimbMap &in = plan.map[l], &out = plan.map[l + 1];
    const auto finish = [&](int t, int row, int column, int channel, T sum) {
      finish_of(t, l, row, column, channel, sum);
    };
    if (layer.backward_packs) {
      climb_backward<4>(block, memory, scratch(memory), layer, in, out, finish);
    } else {
      climb_backward<1>(block, memory, scratch(memory), layer, in, out, finish);
    }
  }

  template <typename Block>
  FI_HD void store(Block& block, const T* memory, T wrong) const {
    const int64_t n = block.x;
    const T poison = static_cast<T>(pgd.poison(n));
    each_pixel(block, [&](int place, int at) {
      pgd.out[n * pgd.length + place] = memory[at] + poison;
      if (steps > 0) grad[n * pgd.length + place] += wrong;
    });
    block.each(1, [&](int64_t) {
      if (steps > 0) value[n] += wrong;
    });
  }
};

}  // namespace fastinterp
