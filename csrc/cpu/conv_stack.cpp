// A stack of convolutions, one image at a time: its maps stay in a core's own cache all the way up,
// and all the way back down.
//
// Vectors run along the channels that a convolution makes. What a row of its kernel reads for one
// position is one stretch of memory (maps have their channels side by side, and zeros to the left
// and right), so that a convolution is a product of rows that overlap with packed weights; rows of
// the kernel that lie above or below the map are left out. The way back is made of the same
// products: with a stride s, the positions that lie s apart in a row see the same part of the
// kernel, and each such *phase* is a convolution of its own. Only at the image, which has few
// channels, vectors run along the taps of the kernel instead, and overlap where they are added up.
// Where maps are pooled, a row of windows is chosen from as soon as its sums are there; which of
// them were chosen leads the gradient back.
#include "conv_stack.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "conv_layers.h"
#include "panels.h"

namespace fastinterp::cpu {
namespace {

template <typename T>
class Stack final : public ConvStack {
 public:
  Stack(const TapLoops<T>& loops, const std::vector<Convolution>& convolutions, int64_t height,
        int64_t width)
      : loops_(loops) {
    layers_.reserve(convolutions.size());
    for (const auto& c : convolutions) {
      layers_.emplace_back(loops, c, height, width);
      auto& layer = layers_.back();
      layers_.size() == 1 ? layer.prepare_scatter(loops, c) : layer.prepare_backward(loops, c);
      height = layer.pooled.rows, width = layer.pooled.columns;
      most_sums_ = std::max(
          {most_sums_, layer.forward.padded_lanes(), layer.backward.front().padded_lanes()});
      if (layers_.size() > 1) layer.map_at = reserve(layer.in.count() * sizeof(T));
      if (layer.pool > 1) {
        layer.places_at = reserve(layer.pooled.count());
        most_unpooled_ = std::max(most_unpooled_, layer.unpooled_row() + layer.pooled.pitch());
      }
    }
  }

  std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& x) const override {
    const Shape& image = layers_.front().in;
    TORCH_CHECK(x.dim() == 4 && x.scalar_type() == at::kFloat && x.size(1) == image.channels &&
                    x.size(2) == image.rows && x.size(3) == image.columns,
                "conv_stack: images must be float32 [N, ", image.channels, ", ", image.rows, ", ",
                image.columns, "], got ", x.sizes(), ".");
    const Shape& last = layers_.back().pooled;
    auto out = at::empty({x.size(0), last.channels, last.rows, last.columns}, x.options(),
                         at::MemoryFormat::ChannelsLast);
    auto saved = at::empty({x.size(0), saved_bytes_}, x.options().dtype(at::kByte));
    share_out(x.size(0), [&](const auto& next) {
      const Scratch<T> image_map(image.count());
      const Scratch<float> row(image.columns * image.channels);
      const Scratch<float> sums(loops_.most_rows * most_sums_), unpooled(most_unpooled_);
      clear_sides(image_map.get(), image);
      for (int64_t n = next(); n < x.size(0); n = next()) {
        read_maps(image_map.get(), image, x, n, row.get());
        up(out.template data_ptr<float>() + n * last.rows * last.columns * last.channels,
           saved_of(saved, n), image_map.get(), sums.get(), unpooled.get());
      }
    });
    return {out, saved};
  }

  at::Tensor backward(const at::Tensor& grad, const at::Tensor& saved) const override {
    const Shape &image = layers_.front().in, &last = layers_.back().pooled;
    TORCH_CHECK(grad.dim() == 4 && grad.scalar_type() == at::kFloat &&
                    grad.size(1) == last.channels && grad.size(2) == last.rows &&
                    grad.size(3) == last.columns && saved.dim() == 2 &&
                    saved.size(0) == grad.size(0) && saved.size(1) == saved_bytes_ &&
                    saved.scalar_type() == at::kByte,
                "conv_stack: grad must be float32 [N, ", last.channels, ", ", last.rows, ", ",
                last.columns, "] and belong to what the forward pass left, got ", grad.sizes(),
                " and ", saved.sizes(), ".");
    auto out = at::empty({grad.size(0), image.channels, image.rows, image.columns}, grad.options());
    share_out(grad.size(0), [&](const auto& next) {
      std::vector<Gradients> gradients;
      for (const auto& layer : layers_) gradients.emplace_back(layer);
      const Scratch<float> sums(loops_.most_rows * most_sums_), row(last.columns * last.channels);
      Scattered scattered(layers_.front());
      for (int64_t n = next(); n < grad.size(0); n = next()) {
        const Gradients& top = gradients.back();
        read_maps(top.landing(), top.landing_shape(), grad, n, row.get());
        down(gradients, saved_of(saved, n), sums.get());
        scatter(scattered, gradients.front().map.get(), sums.get());
        scattered.crop(out.template data_ptr<float>() +
                       n * image.channels * image.rows * image.columns);
      }
    });
    return out;
  }

 private:
  // A piece of what is saved of an image.
  int64_t reserve(int64_t bytes) {
    constexpr int64_t kAlign = 64;
    const int64_t begin = saved_bytes_;
    saved_bytes_ += ceil_div(bytes, kAlign) * kAlign;
    return begin;
  }
  static uint8_t* saved_of(const at::Tensor& saved, int64_t n) {
    return saved.data_ptr<uint8_t>() + n * saved.size(1);
  }
  static T* map_of(uint8_t* saved, const Layer<T>& layer) {
    return reinterpret_cast<T*>(saved + layer.map_at);
  }
  static uint8_t* places_of(uint8_t* saved, const Layer<T>& layer, int64_t row) {
    return saved + layer.places_at + row * layer.pooled.pitch();
  }

  // One image's maps [channels, rows, columns] -> [rows, columns, channels], in T.
  void read_maps(T* map, const Shape& s, const at::Tensor& from, int64_t n, float* row) const {
    const float* const image = from.data_ptr<float>() + n * from.stride(0);
    const int64_t by_channel = from.stride(1), by_column = from.stride(3);
    const bool at_once =
        s.channels == 1 ? by_column == 1 : by_channel == 1 && by_column == s.channels;
    for (int64_t i = 0; i < s.rows; ++i) {
      const float* const source = image + i * from.stride(2);
      if (!at_once) {
        for (int64_t c = 0; c < s.channels; ++c) {
          for (int64_t j = 0; j < s.columns; ++j) {
            row[j * s.channels + c] = source[c * by_channel + j * by_column];
          }
        }
      }
      loops_.narrow(map + s.at(i, 0), at_once ? source : row, s.columns * s.channels);
    }
  }

  // All the convolutions of one image. What the next one sees is written where it is saved.
  void up(float* out, uint8_t* saved, const T* map, float* sums, float* unpooled) const {
    for (const auto& layer : layers_) {
      const bool last = &layer == &layers_.back();
      const Shape& to = last ? layer.pooled : (&layer + 1)->in;
      T* const target = last ? nullptr : map_of(saved, *(&layer + 1));
      if (!last) clear_sides(target, to);
      for (int64_t i = 0; i < to.rows; ++i) {
        const auto land = [&](const float* sums, int64_t ld, int64_t j, int64_t rows, int64_t lane,
                              int64_t lanes) {
          const float* const bias = layer.bias.data() + lane;
          if (!last) {
            loops_.activate(target + to.at(i, j) + lane, to.channels, sums, ld, bias, rows, lanes);
            return;
          }
          float* row = out + (i * to.columns + j) * to.channels + lane;
          for (int64_t r = 0; r < rows; ++r, row += to.channels, sums += ld) {
            for (int64_t k = 0; k < lanes; ++k) row[k] = sums[k] + bias[k];
          }
        };
        if (layer.pool == 1) {
          convolve(layer, map, i, sums, land);
        } else {
          const float* const largest =
              pool(layer, map, i, sums, unpooled, places_of(saved, layer, i));
          land(largest, to.channels, 0, to.columns, 0, to.channels);
        }
      }
      map = target;
    }
  }

  // Row i of a convolution's output; `done` as in Packed::multiply.
  template <typename Done>
  void convolve(const Layer<T>& layer, const T* map, int64_t i, float* sums,
                const Done& done) const {
    const int64_t origin = i * layer.stride - layer.top;
    const int64_t first = std::clamp<int64_t>(-origin, 0, layer.kernel_rows);
    const int64_t end = std::clamp(layer.in.rows - origin, first, layer.kernel_rows);
    const T* const from = map + layer.in.at(origin + first, -layer.in.left);
    layer.forward.multiply(sums, from, layer.stride * layer.in.channels, layer.in.pitch(), first,
                           end, layer.out.columns, done);
  }

  // Row i of the windows, before the bias, which is the same all over a window.
  const float* pool(const Layer<T>& layer, const T* map, int64_t i, float* sums, float* unpooled,
                    uint8_t* places) const {
    const int64_t channels = layer.out.channels, columns = layer.out.columns;
    const int64_t first = i * layer.pool, rows = std::min(layer.pool, layer.out.rows - first);
    for (int64_t y = 0; y < rows; ++y) {
      convolve(layer, map, first + y, sums,
               [&](const float* sums, int64_t ld, int64_t j, int64_t count, int64_t lane,
                   int64_t lanes) {
                 float* to = unpooled + (y * columns + j) * channels + lane;
                 for (int64_t r = 0; r < count; ++r, to += channels, sums += ld) {
                   std::copy_n(sums, lanes, to);
                 }
               });
    }
    float* const largest = unpooled + layer.unpooled_row();
    loops_.pool(largest, places, unpooled, rows, columns, layer.pool, channels);
    return largest;
  }

  // One thread's gradients at a convolution's output and, where it is pooled, at what that gives.
  struct Gradients {
    explicit Gradients(const Layer<T>& layer)
        : layer(layer), map(layer.out.count()), pooled(layer.pool > 1 ? layer.pooled.count() : 0) {
      clear_sides(map.get(), layer.out);
    }
    T* landing() const { return layer.pool > 1 ? pooled.get() : map.get(); }
    const Shape& landing_shape() const { return layer.pool > 1 ? layer.pooled : layer.out; }

    const Layer<T>& layer;
    Scratch<T> map, pooled;
  };

  // From the gradient at what the last convolution gives to that at the first one's output.
  void down(const std::vector<Gradients>& gradients, uint8_t* saved, float* sums) const {
    for (size_t l = layers_.size() - 1; l > 0; --l) {
      const auto& layer = layers_[l];
      unpool(gradients[l], saved);
      for (int64_t a = 0; a < layer.stride; ++a) {
        for (int64_t b = 0; b < layer.stride; ++b) {
          phase(layer, a, b, gradients[l].map.get(), map_of(saved, layer),
                gradients[l - 1].landing(), gradients[l - 1].landing_shape(), sums);
        }
      }
    }
    unpool(gradients.front(), saved);
  }

  void unpool(const Gradients& gradients, uint8_t* saved) const {
    const auto& layer = gradients.layer;
    if (layer.pool == 1) return;
    for (int64_t y = 0; y < layer.out.rows; ++y) {
      const int64_t i = y / layer.pool;
      loops_.unpool(gradients.map.get() + layer.out.at(y, 0),
                    gradients.pooled.get() + layer.pooled.at(i, 0), places_of(saved, layer, i),
                    y % layer.pool, layer.out.columns, layer.pool, layer.out.channels);
    }
  }

  // The positions of one phase: their part of the kernel times `grad`, where the ReLU let through.
  void phase(const Layer<T>& layer, int64_t a, int64_t b, const T* grad, const T* seen, T* out,
             const Shape& to, float* sums) const {
    const Phase &rows = layer.rows[a], &columns = layer.columns[b];
    const auto& weights = layer.backward[a * layer.stride + b];
    const int64_t channels = to.channels, step = layer.stride * channels;
    for (int64_t i = 0; i < rows.count; ++i) {
      const int64_t y = rows.first + i * layer.stride, origin = rows.origin + i;
      const int64_t first = std::clamp<int64_t>(-origin, 0, weights.taps());
      const int64_t end = std::clamp(layer.out.rows - origin, first, weights.taps());
      const T* const from = grad + layer.out.at(origin + first, columns.origin);
      weights.multiply(sums, from, layer.out.channels, layer.out.pitch(), first, end, columns.count,
                       [&](const float* sums, int64_t ld, int64_t j, int64_t count, int64_t lane,
                           int64_t lanes) {
                         const int64_t x = columns.first + j * layer.stride;
                         loops_.gate(out + to.at(y, x) + lane, seen + layer.in.at(y, x) + lane,
                                     step, step, sums, ld, count, lanes);
                       });
    }
  }

  // What the windows of the first convolution cover of an image, added up.
  class Scattered {
   public:
    explicit Scattered(const Layer<T>& layer)
        : layer_(layer),
          covered_{(layer.out.rows - 1) * layer.stride + layer.kernel_rows,
                   (layer.out.columns - 1) * layer.stride + layer.kernel_columns,
                   layer.in.channels},
          sums_(covered_.count()) {}

    void clear() { std::fill_n(sums_.get(), covered_.count(), 0.0f); }

    // `lanes` taps from `lane` on, of output (i, j).
    void add(int64_t i, int64_t j, const float* sent, int64_t lane, int64_t lanes) {
      const int64_t run = layer_.kernel_columns * covered_.channels, s = layer_.stride;
      for (int64_t end = lane + lanes; lane < end;) {
        const int64_t count = std::min(run - lane % run, end - lane);
        float* const to = sums_.get() + covered_.at(i * s + lane / run, j * s) + lane % run;
        for (int64_t k = 0; k < count; ++k) to[k] += sent[k];
        sent += count, lane += count;
      }
    }

    // [rows, columns, channels] with padding -> [channels, rows, columns] without; what no window
    // covered gets zeros.
    void crop(float* image) const {
      const Shape& in = layer_.in;
      for (int64_t c = 0; c < in.channels; ++c) {
        for (int64_t y = layer_.top; y < layer_.top + in.rows; ++y, image += in.columns) {
          const int64_t seen = y < covered_.rows ? covered_.columns - in.left : 0;
          const int64_t count = std::clamp<int64_t>(seen, 0, in.columns);
          const float* const from = sums_.get() + covered_.at(y, in.left) + c;
          for (int64_t x = 0; x < count; ++x) image[x] = from[x * in.channels];
          std::fill_n(image + count, in.columns - count, 0.0f);
        }
      }
    }

   private:
    const Layer<T>& layer_;
    Shape covered_;
    Scratch<float> sums_;
  };

  void scatter(Scattered& to, const T* grad, float* sums) const {
    const auto& layer = layers_.front();
    to.clear();
    for (int64_t i = 0; i < layer.out.rows; ++i) {
      layer.backward.front().multiply(
          sums, grad + layer.out.at(i, 0), layer.out.channels, 0, 0, 1, layer.out.columns,
          [&](const float* sums, int64_t ld, int64_t j, int64_t rows, int64_t lane, int64_t lanes) {
            for (int64_t r = 0; r < rows; ++r) to.add(i, j + r, sums + r * ld, lane, lanes);
          });
    }
  }

  const TapLoops<T>& loops_;
  std::vector<Layer<T>> layers_;
  int64_t saved_bytes_ = 0, most_sums_ = 0, most_unpooled_ = 0;
};

void check(const std::vector<Convolution>& layers, int64_t height, int64_t width) {
  TORCH_CHECK(!layers.empty(), "conv_stack: at least one convolution is needed.");
  int64_t channels = layers.front().weight.size(1);
  for (const auto& c : layers) {
    TORCH_CHECK(c.weight.dim() == 4 && c.weight.numel() > 0 && c.bias.dim() == 1 &&
                    c.bias.size(0) == c.weight.size(0) && c.weight.size(1) == channels,
                "conv_stack: a weight must be [out, in, k, k], its bias [out], and `in` the `out` "
                "of the convolution before, got ",
                c.weight.sizes(), " and ", c.bias.sizes(), ".");
    TORCH_CHECK(c.weight.scalar_type() == at::kFloat && c.bias.scalar_type() == at::kFloat &&
                    c.weight.is_cpu() && c.bias.is_cpu(),
                "conv_stack: weights and biases must be float32 on a CPU.");
    TORCH_CHECK(c.stride > 0 && std::min({c.top, c.bottom, c.left, c.right}) >= 0,
                "conv_stack: strides must be positive and padding not negative.");
    const int64_t rows = height + c.top + c.bottom - c.weight.size(2);
    const int64_t columns = width + c.left + c.right - c.weight.size(3);
    TORCH_CHECK(height > 0 && width > 0 && rows >= 0 && columns >= 0,
                "conv_stack: a kernel is larger than the padded maps that it reads.");
    constexpr int64_t kMostPool = 16;  // whose places fit into a byte
    TORCH_CHECK(c.pool >= 1 && c.pool <= kMostPool, "conv_stack: windows of a pool must be 1 to ",
                kMostPool, " wide, got ", c.pool, ".");
    channels = c.weight.size(0);
    height = ceil_div(rows / c.stride + 1, c.pool),
    width = ceil_div(columns / c.stride + 1, c.pool);
  }
}

}  // namespace

bool has_bf16_pairs() { return tap_loops<Bf16>() != nullptr; }

std::unique_ptr<ConvStack> make_conv_stack(const std::vector<Convolution>& layers, int64_t height,
                                           int64_t width, bool bf16) {
  check(layers, height, width);
  if (!bf16) return std::make_unique<Stack<float>>(*tap_loops<float>(), layers, height, width);
  TORCH_CHECK(has_bf16_pairs(), "conv_stack: this processor has no units for pairs of bfloat16.");
  return std::make_unique<Stack<Bf16>>(*tap_loops<Bf16>(), layers, height, width);
}

}  // namespace fastinterp::cpu
