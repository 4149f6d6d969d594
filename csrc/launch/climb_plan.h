// Plans a climb from the sizes of a network: shared memory, and how threads divide each layer.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "../kernels/climb.cuh"

namespace fastinterp {

// A convolution of maps [in, H, W] with a kernel [out, in, rows, columns].
struct ClimbConvolution {
  int64_t out, in, rows, columns;
  int64_t stride, top, bottom, left, right;  // padding
};

constexpr int64_t kClimbGeometry = 5;  // numbers a layer, beside its weight

// From the weights and, for each of them, stride, top, bottom, left and right.
inline std::vector<ClimbConvolution> climb_convolutions(const std::vector<at::Tensor>& weights,
                                                        at::IntArrayRef geometry) {
  TORCH_CHECK(!weights.empty() && geometry.size() == kClimbGeometry * weights.size(),
              "climb: each of one or more weights needs five numbers of geometry, got ",
              weights.size(), " weights and ", geometry.size(), " numbers.");
  std::vector<ClimbConvolution> found;
  for (size_t l = 0; l < weights.size(); ++l) {
    const auto& w = weights[l];
    const auto g = geometry.slice(kClimbGeometry * l, kClimbGeometry);
    TORCH_CHECK(w.dim() == 4 && w.numel() > 0, "climb: weights must be [out, in, k, k'], got ",
                w.sizes(), ".");
    TORCH_CHECK(g[0] > 0 && *std::min_element(g.begin() + 1, g.end()) >= 0,
                "climb: strides must be positive and padding not negative.");
    TORCH_CHECK(found.empty() || found.back().out == w.size(1),
                "climb: a convolution must read as many channels as the one before it gives.");
    found.push_back({w.size(0), w.size(1), w.size(2), w.size(3), g[0], g[1], g[2], g[3], g[4]});
  }
  return found;
}

inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Gives threads to the tiles; what is left over divides their `taps`.
// `channels` are counted in packs, of which a tile has `most` at most.
inline ClimbWork climb_work(int rows, int columns, int phases, int channels, int most, int slices,
                            int taps) {
  ClimbWork work{};
  const int in_phase = ceil_div(columns, phases);
  work.columns = columns;
  work.phases = phases;
  work.blocks = phases * ceil_div(in_phase, kTileColumns);
  work.groups = ceil_div(channels, most);
  work.height = ceil_div(channels, work.groups);
  work.tiles = rows * work.blocks * work.groups;
  work.slices = slices;
  work.bundle = std::min(work.blocks * work.groups, kThreads / slices);
  const int bundles = ceil_div(work.tiles, work.bundle);
  const int threads = work.bundle * slices;  // of a bundle
  work.parts = std::max(1, std::min(taps, kThreads / (bundles * threads)));
  work.bundles = std::min(bundles, kThreads / (work.parts * threads));
  work.pitch = kThreads + (slices > 1 ? 1 : work.bundle % kWarp);
  return work;
}

// Zeros that the backward pass reads to the left and to the right of a layer's output.
struct Sides {
  int left, right;
};

inline Sides backward_sides(const ClimbConvolution& c, int in_columns, int out_columns) {
  Sides sides{};
  for (int i = 0; i < in_columns; ++i) {
    const int from = i + static_cast<int>(c.left), stride = static_cast<int>(c.stride);
    const int columns = (static_cast<int>(c.columns) - from % stride + stride - 1) / stride;
    if (columns <= 0) continue;
    sides.left = std::max(sides.left, columns - 1 - from / stride);
    sides.right = std::max(sides.right, from / stride - out_columns + 1);
  }
  return sides;
}

// The distance of positions in shared memory: whole packs, and an odd number of them.
inline int climb_pitch(int channels, bool in_packs) {
  if (!in_packs) return channels;
  return 4 * (ceil_div(channels, 4) | 1);
}

// Shared memory, one array after another, in numbers of T.
template <typename T>
class ClimbMemory {
 public:
  int take(int64_t count) {
    const int64_t begin = end_;
    end_ += (count + kAlign - 1) / kAlign * kAlign;
    TORCH_CHECK(end_ < std::numeric_limits<int>::max() / 8, "climb: the network is too large.");
    return static_cast<int>(begin);
  }
  int64_t bytes() const { return end_ * static_cast<int64_t>(sizeof(T)); }

 private:
  static constexpr int64_t kAlign = 16 / sizeof(T);
  int64_t end_ = 0;
};

// The layers' sizes and how threads divide them.
inline void plan_layers(ClimbPlan& plan, const std::vector<ClimbConvolution>& convolutions,
                        int64_t height, int64_t width) {
  const auto& first = convolutions.front();
  plan.layers = static_cast<int>(convolutions.size());
  plan.map[0] = {0, static_cast<int>(height), static_cast<int>(width), static_cast<int>(first.in)};
  for (int l = 0; l < plan.layers; ++l) {
    const auto& c = convolutions[l];
    ClimbMap &in = plan.map[l], &out = plan.map[l + 1];
    ClimbLayer& layer = plan.layer[l];
    const int64_t rows = in.rows + c.top + c.bottom - c.rows;
    const int64_t columns = in.columns + c.left + c.right - c.columns;
    TORCH_CHECK(in.rows > 0 && in.columns > 0 && rows >= 0 && columns >= 0,
                "climb: a kernel is larger than the padded maps that it reads.");
    layer.kernel_rows = static_cast<int>(c.rows);
    layer.kernel_columns = static_cast<int>(c.columns);
    layer.stride = static_cast<int>(c.stride);
    layer.top = static_cast<int>(c.top);
    layer.left = static_cast<int>(c.left);
    out.rows = static_cast<int>(rows / c.stride + 1);
    out.columns = static_cast<int>(columns / c.stride + 1);
    out.channels = static_cast<int>(c.out);
    const Sides sides = backward_sides(c, in.columns, out.columns);
    out.left = sides.left;
    out.width = sides.left + out.columns + sides.right;
    const int right = in.width - in.left - in.columns;
    in.left = std::max(in.left, layer.left);
    in.width = in.left + in.columns + std::max<int>(right, static_cast<int>(c.right));
    layer.forward_packs = layer.backward_packs = in.channels % 4 == 0;
    const int pack = layer.forward_packs ? 4 : 1, taps = layer.kernel_rows * layer.kernel_columns;
    TORCH_CHECK(in.channels / pack <= kThreads, "climb: a convolution reads too many channels.");
    layer.forward =
        climb_work(out.rows, out.columns, 1, out.channels, kTileChannels, in.channels / pack, taps);
    const int phase_taps =
        ceil_div(layer.kernel_rows, layer.stride) * ceil_div(layer.kernel_columns, layer.stride);
    layer.backward = climb_work(in.rows, in.columns, layer.stride, in.channels / pack,
                                kTileChannels / pack, 1, phase_taps);
  }
}

template <typename T>
ClimbPlan climb_plan(const std::vector<ClimbConvolution>& convolutions, int64_t height,
                     int64_t width) {
  ClimbPlan plan{};
  plan_layers(plan, convolutions, height, width);
  ClimbMemory<T> memory;
  for (int l = 0; l <= plan.layers; ++l) {
    ClimbMap& map = plan.map[l];
    map.width = std::max(map.width, map.left + map.columns);
    map.pitch = climb_pitch(map.channels, l > 0 || map.channels % 4 == 0);
    map.begin = memory.take(map.size());
  }
  int64_t sums = 0, spare = 0;
  for (int l = 0; l < plan.layers; ++l) {
    ClimbLayer& layer = plan.layer[l];
    const int64_t tap = int64_t{plan.map[l].channels} * plan.map[l + 1].channels;
    // Parts of the taps that threads of a warp read at a time should lie in different banks.
    layer.tap_pitch = static_cast<int>(tap % 4 == 0 && tap / 4 % 4 == 0 ? tap + 8 : tap);
    layer.weight = memory.take(int64_t{layer.tap_pitch} * layer.kernel_rows * layer.kernel_columns);
    layer.bias = memory.take(plan.map[l + 1].channels);
    // Tiles that are not full read beyond the last channel.
    const int64_t in = plan.map[l].channels, out = plan.map[l + 1].channels;
    spare = std::max({spare, (layer.forward.groups * kTileChannels - out) * in,
                      layer.backward.groups * kTileChannels - in});
    sums = std::max<int64_t>({sums, layer.forward.pitch, layer.backward.pitch});
  }
  const ClimbMap &image = plan.map[0], &top = plan.map[plan.layers];
  plan.x = memory.take(int64_t{image.rows} * image.columns * image.channels);
  plan.clean = memory.take(int64_t{top.rows} * top.columns * top.channels);
  plan.bias = memory.take(top.channels);
  plan.log_p = memory.take(top.channels);
  memory.take(spare);
  constexpr int64_t kPerDouble = sizeof(double) / sizeof(T);
  plan.scratch =
      memory.take(std::max(sums * kTileSums, ClimbSums::count(top.channels) * kPerDouble));
  plan.bytes = memory.bytes();
  return plan;
}

}  // namespace fastinterp
