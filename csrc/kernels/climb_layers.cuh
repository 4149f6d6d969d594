// The convolutions of one image whose maps and weights are all in shared memory, and the gradients
// by their inputs.
//
// A thread sums a tile of kTileChannels x kTileColumns results of one row in registers, over a part
// of the terms: some taps of the kernel and, in the forward pass, one slice of the input's
// channels. The parts of a tile meet in shared memory and are added in the order of their threads.
#pragma once

#include "maps.cuh"
#include "products.cuh"

namespace fastinterp {

constexpr int kTileChannels = 8, kTileColumns = 4;
constexpr int kTileSums = kTileChannels * kTileColumns;

// [rows][left + columns + right][pitch], with zeros to the left and to the right of each row.
struct ClimbMap {
  int begin;  // where it begins in shared memory, in numbers
  int rows, columns, channels;
  int left, width;  // width is left + columns + right
  int pitch;        // from one position to the next

  FI_HD int at(int row, int column) const { return begin + (row * width + left + column) * pitch; }
  FI_HD int size() const { return rows * width * pitch; }
};

// What a thread sums: columns column, column + phases, ... of a row, channels of a group.
struct ClimbUnit {
  bool real;
  int slice, part, row, column, group;
  int first_split;  // the thread of the tile's first part and slice
};

// How the block's threads divide the results of a layer. Neighbouring threads have the slices of a
// tile, then the tiles of a bundle, then the parts.
struct ClimbWork {
  int columns;  // of a row of results
  int phases;   // columns of one phase, which are so far apart, see the same taps
  int blocks;   // tiles of a row that differ in their columns
  int groups;   // tiles that differ in their channels: g, g + groups, ...
  int height;   // channels of a tile, or packs of channels
  int tiles;    // all of them
  int bundle;   // tiles that lie side by side
  int bundles;  // that the block takes at a time
  int slices, parts;
  int pitch;  // of the sums that meet in shared memory; it avoids bank conflicts

  FI_HD int split_thread(const ClimbUnit& unit, int part, int slice) const {
    return unit.first_split + part * bundle * slices + slice;
  }

  FI_HD ClimbUnit unit(int first_bundle, int thread) const {
    ClimbUnit unit;
    unit.slice = thread % slices;
    const int side = thread / slices % bundle, rest = thread / (slices * bundle);
    unit.part = rest % parts;
    const int place = rest / parts;
    int tile = (first_bundle + place) * bundle + side;
    unit.real = place < bundles && tile < tiles;
    unit.first_split = (place * parts * bundle + side) * slices;
    unit.group = tile % groups;
    tile /= groups;
    const int block = tile % blocks;
    unit.row = tile / blocks;
    unit.column = block % phases + block / phases * (phases * kTileColumns);
    unit.real = unit.real && unit.column < columns;
    return unit;
  }

  // Whether the tile's j-th column exists; another one is summed in its place and left out.
  FI_HD bool has(const ClimbUnit& unit, int j) const { return unit.column + j * phases < columns; }
};

struct ClimbLayer {
  int kernel_rows, kernel_columns, stride, top, left;
  int weight;  // [taps][out][in] in shared memory, with tap_pitch from one tap to the next
  int tap_pitch;
  int bias;
  bool forward_packs, backward_packs;  // whether channels are read four at a time
  ClimbWork forward, backward;
};

// sum(unit, sums) adds this thread's terms to sums[kTileChannels][kTileColumns]. Then
// finish(t, unit, i, j, sum) gets each complete sum once, in thread t; it may write what `sum`
// read.
template <typename T, typename Block, typename Sum, typename Finish>
FI_HD void climb_tiles(Block& block, T* scratch, const ClimbWork& work, const Sum& sum,
                       const Finish& finish) {
  const int pitch = work.pitch, splits = work.parts * work.slices;
  for (int first = 0; first * work.bundle < work.tiles; first += work.bundles) {
    block.each_thread([&](int t) {
      const ClimbUnit unit = work.unit(first, t);
      if (!unit.real) return;
      T sums[kTileChannels][kTileColumns] = {};
      sum(unit, sums);
      FI_UNROLL
      for (int i = 0; i < kTileSums; ++i) {
        scratch[i * pitch + t] = sums[i / kTileColumns][i % kTileColumns];
      }
    });
    block.each_thread([&](int t) {
      const ClimbUnit unit = work.unit(first, t);
      if (!unit.real) return;
      for (int i = unit.part * work.slices + unit.slice; i < kTileSums; i += splits) {
        if (!work.has(unit, i % kTileColumns)) continue;
        T total = 0;
        for (int part = 0; part < work.parts; ++part) {
          for (int slice = 0; slice < work.slices; ++slice) {
            total += scratch[i * pitch + work.split_thread(unit, part, slice)];
          }
        }
        finish(t, unit, i / kTileColumns, i % kTileColumns, total);
      }
    });
  }
}

// The taps begin, ..., end - 1 of one part.
struct Taps {
  int begin, end;

  FI_HD Taps(int taps, int part, int parts) {
    const int each = (taps + parts - 1) / parts;
    begin = part * each;
    end = begin + each < taps ? begin + each : taps;
  }
};

// Calls f with a constant of at least `height`, so that loops over a tile's channels are unrolled.
// Few constants, since each is another copy of the loops.
template <int N>
struct Constant {
  static constexpr int value = N;
};
template <int Most, typename F>
FI_HD void with_height(int height, const F& f) {
  if (height == 1) return f(Constant<1>{});
  if constexpr (Most > 5) {
    if (height <= 3) return f(Constant<3>{});
    if (height <= 5) return f(Constant<5>{});
  }
  f(Constant<Most>{});
}

// Results of a convolution without its bias: finish(t, row, column, channel, sum). V input channels
// are read at a time; a slice is V of them. A tile's channels beyond the last read weights of other
// channels, and what they sum is left out.
template <int V, typename T, typename Block, typename Finish>
FI_HD void climb_forward(Block& block, T* memory, T* scratch, const ClimbLayer& layer,
                         const ClimbMap& in, const ClimbMap& out, const Finish& finish) {
  using Packed = Pack<T, V>;
  const ClimbWork& work = layer.forward;
  const auto sum = [&](const auto height, const ClimbUnit& unit,
                       T(&sums)[kTileChannels][kTileColumns]) {
    constexpr int kHeight = decltype(height)::value;
    const int above = layer.top - unit.row * layer.stride, below = in.rows + above;
    const int first = above > 0 ? above : 0;
    const int last = below < layer.kernel_rows ? below : layer.kernel_rows;
    if (first >= last) return;
    const int kernel_columns = layer.kernel_columns, tap_pitch = layer.tap_pitch;
    const Taps taps((last - first) * kernel_columns, unit.part, work.parts);
    int column = taps.begin % kernel_columns;
    const T* from = memory + unit.slice * V +
                    in.at(first + taps.begin / kernel_columns - above,
                          unit.column * layer.stride - layer.left + column);
    const T* weights = memory + layer.weight + unit.slice * V + unit.group * in.channels +
                       (first * kernel_columns + taps.begin) * tap_pitch;
    int shift[kTileColumns];
    FI_UNROLL
    for (int j = 0; j < kTileColumns; ++j) {
      shift[j] = work.has(unit, j) ? j * layer.stride * in.pitch : 0;
    }
    const int next_channel = work.groups * in.channels, pitch = in.pitch;
    const int next_row = (in.width - kernel_columns) * pitch;
    for (int tap = taps.begin; tap < taps.end; ++tap) {
      Packed values[kTileColumns], weight[kHeight];
      FI_UNROLL
      for (int j = 0; j < kTileColumns; ++j) {
        values[j] = *reinterpret_cast<const Packed*>(from + shift[j]);
      }
      FI_UNROLL
      for (int i = 0; i < kHeight; ++i) {
        weight[i] = *reinterpret_cast<const Packed*>(weights + i * next_channel);
      }
      FI_UNROLL
      for (int i = 0; i < kHeight; ++i) {
        FI_UNROLL
        for (int k = 0; k < V; ++k) {
          FI_UNROLL
          for (int j = 0; j < kTileColumns; ++j) {
            sums[i][j] += weight[i].values[k] * values[j].values[k];
          }
        }
      }
      weights += tap_pitch;
      from += pitch;
      if (++column == kernel_columns) column = 0, from += next_row;
    }
  };
  const auto end = [&](int t, const ClimbUnit& unit, int i, int j, T total) {
    const int channel = unit.group + i * work.groups;
    if (channel < out.channels) finish(t, unit.row, unit.column + j, channel, total);
  };
  with_height<kTileChannels>(work.height, [&](const auto height) {
    climb_tiles(
        block, scratch, work, [&](const auto& unit, auto& sums) { sum(height, unit, sums); }, end);
  });
}

// The gradient by a convolution's input from the gradient by its output, which lies where the
// output was: finish(t, row, column, channel, sum). V input channels are read at a time.
template <int V, typename T, typename Block, typename Finish>
FI_HD void climb_backward(Block& block, T* memory, T* scratch, const ClimbLayer& layer,
                          const ClimbMap& in, const ClimbMap& out, const Finish& finish) {
  using Packed = Pack<T, V>;
  using Quad = Pack<T, 4>;
  const ClimbWork& work = layer.backward;
  const auto sum = [&](const auto height, const ClimbUnit& unit,
                       T(&sums)[kTileChannels][kTileColumns]) {
    constexpr int kPacks = decltype(height)::value;
    // The taps of this phase are first_row + stride * a, first_column + stride * b, and see output
    // row - a, column - b.
    const int s = layer.stride, from_top = unit.row + layer.top, row = from_top / s;
    const int from_left = unit.column + layer.left, column = from_left / s;
    const int first_row = from_top % s, first_column = from_left % s;
    const int rows = (layer.kernel_rows - first_row + s - 1) / s;
    const int columns = (layer.kernel_columns - first_column + s - 1) / s;
    const int begin = row - out.rows + 1 > 0 ? row - out.rows + 1 : 0;
    const int end = row + 1 < rows ? row + 1 : rows;
    if (begin >= end || columns <= 0) return;
    const Taps taps((end - begin) * columns, unit.part, work.parts);
    int b = taps.begin % columns;
    const int a = begin + taps.begin / columns;
    const T* from = memory + out.at(row - a, column - b);
    const T* weights =
        memory + layer.weight + unit.group * V +
        ((first_row + s * a) * layer.kernel_columns + first_column + s * b) * layer.tap_pitch;
    int shift[kTileColumns];
    FI_UNROLL
    for (int j = 0; j < kTileColumns; ++j) shift[j] = work.has(unit, j) ? j * out.pitch : 0;
    const int pitch = out.pitch, outputs = out.channels, inputs = in.channels;
    const int next_pack = work.groups * V, next_weights = s * layer.tap_pitch;
    const int next_row = (columns - out.width) * pitch;
    const int skipped = (layer.kernel_columns - columns) * next_weights;
    const auto multiply = [&](const T* weight_row, const auto& grad) {
      Packed weight[kPacks];
      FI_UNROLL
      for (int i = 0; i < kPacks; ++i) {
        weight[i] = *reinterpret_cast<const Packed*>(weight_row + i * next_pack);
      }
      FI_UNROLL
      for (int i = 0; i < kPacks; ++i) {
        FI_UNROLL
        for (int l = 0; l < V; ++l) {
          FI_UNROLL
          for (int j = 0; j < kTileColumns; ++j)
            sums[i * V + l][j] += weight[i].values[l] * grad(j);
        }
      }
    };
    for (int tap = taps.begin; tap < taps.end; ++tap) {
      const T* weight_row = weights;
      int channel = 0;
      for (; channel + 4 <= outputs; channel += 4) {
        Quad grads[kTileColumns];
        FI_UNROLL
        for (int j = 0; j < kTileColumns; ++j) {
          grads[j] = *reinterpret_cast<const Quad*>(from + shift[j] + channel);
        }
        FI_UNROLL
        for (int k = 0; k < 4; ++k) {
          multiply(weight_row, [&](int j) { return grads[j].values[k]; });
          weight_row += inputs;
        }
      }
      for (; channel < outputs; ++channel) {
        multiply(weight_row, [&](int j) { return from[shift[j] + channel]; });
        weight_row += inputs;
      }
      weights += next_weights;
      from -= pitch;
      if (++b == columns) b = 0, from += next_row, weights += skipped;
    }
  };
  const auto end = [&](int t, const ClimbUnit& unit, int i, int j, T total) {
    const int channel = (i / V * work.groups + unit.group) * V + i % V;
    if (channel < in.channels) {
      finish(t, unit.row, unit.column + j * work.phases, channel, total);
    }
  };
  with_height<kTileChannels / V>(work.height, [&](const auto height) {
    climb_tiles(
        block, scratch, work, [&](const auto& unit, auto& sums) { sum(height, unit, sums); }, end);
  });
}

}  // namespace fastinterp
