// The discrepancy of eq. (8) on the CPU. For one image, tile by tile of its positions:
//   panel = A' - A,   maps = W panel,   S_c += sum |maps_c|;
// then D and its coefficients q, r; then, where gradients are wanted, from the maps' signs
//   dD/dA' = (1/u) W^T (q sign(maps) + r),   dD/dA = -(1/u) W^T (q sign(maps)),
//   dD/dW  = (1/u) (q sign(maps)) (A' - A)^T + r (mean A')^T.
// A thread holds one image's maps; for a backward pass it saves their signs, one byte each.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <cstring>
#include <optional>
#include <tuple>
#include <vector>

#include "../checks.h"
#include "../kernels/discrepancy_softmax.cuh"
#include "../saved.h"
#include "panels.h"

namespace fastinterp::cpu {
namespace {

template <typename T>
struct Problem {
  Sizes sizes;
  Maps<T> features, features_adv;  // A, A'
  const T* weight;                 // [C, K]
  const T* rows;                   // the same as a panel: rows `ld` apart, padded with zeros
  int64_t ld;
};

// Works on one image at a time, in the scratch memory of one thread.
template <typename T>
class Image {
 public:
  explicit Image(const Problem<T>& problem)
      : problem_(problem),
        tiling_(problem.sizes),
        panel_(problem.sizes.channels * std::max(tiling_.ld, vector_.width + 1)),
        maps_(problem.sizes.classes * tiling_.ld * tiling_.count),
        signs_(problem.sizes.classes * tiling_.ld),
        means_(problem.sizes.channels),
        sums(problem.sizes.channels),
        scaled_(2 * problem.sizes.classes) {
    // Columns past the last one in use are never written; they add nothing to a map's size.
    std::fill_n(maps_.get(), problem.sizes.classes * tiling_.ld * tiling_.count, T(0));
  }

  // Sets the saved signs of the next image, [C, u]: make_maps writes them, gradients read them.
  void save_signs_at(int8_t* signs) { saved_signs_ = signs; }

  // maps = W (A' - A); sums[k] = the sum of A' over positions. Saves the signs if asked to.
  void make_maps(int64_t n) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (int64_t tile = 0; tile < tiling_.count; ++tile) {
      make_tile(n, tile);
      if (!saved_signs_) continue;
      vector_.store_signs(saved_signs(tile), positions(), maps(tile), tiling_.ld, classes(),
                          tiling_.columns(tile));
    }
  }

  // The sums alone, for a backward pass with saved signs.
  void sum_channels(int64_t n) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (int64_t tile = 0; tile < tiling_.count; ++tile) {
      vector_.load(panel_.get(), tiling_.ld, tile_of(problem_.features_adv, n, tiling_.begin(tile)),
                   strides_of(problem_.features_adv), nullptr, {}, channels(),
                   tiling_.columns(tile), sums.data());
    }
  }

  // size[c] = S_c and logit[c] (without bias), from the maps.
  void distances_and_logits(double* size, double* logit) {
    const double inverse = 1.0 / static_cast<double>(positions());
    std::fill(size, size + classes(), 0.0);
    for (int64_t tile = 0; tile < tiling_.count; ++tile) {
      vector_.abs_sums(size, maps(tile), classes(), tiling_.ld);
    }
    vector_.row_products(logit, problem_.weight, sums.data(), classes(), channels());
    for (int64_t c = 0; c < classes(); ++c) {
      size[c] *= inverse;
      logit[c] *= inverse;
    }
  }

  // grad_features[n] = -(factor / u) W^T (q sign(maps)),
  // grad_features_adv[n] = (factor / u) W^T (q sign(maps) + r). Either may be null. One product
  // makes both, since their sum is one number per channel.
  void gradients(const Maps<T>& grad_features, const Maps<T>& grad_features_adv, int64_t n,
                 const double* q, const double* r, double factor) {
    const double by = factor / static_cast<double>(problem_.sizes.positions);
    if (!grad_features.data) {
      scale(q, r, by);
      return pull_back(grad_features_adv, n, true);
    }
    scale(q, r, -by);
    pull_back(grad_features, n, false);
    if (grad_features_adv.data) negate_and_shift(grad_features_adv, grad_features, n);
  }

  // partial [C, K] += factor dD/dW, except for what `correlation` has not flushed yet.
  void weight_gradient(Correlation<T>& correlation, double* partial, int64_t n, const double* q,
                       const double* r, double factor) {
    const double by = factor / static_cast<double>(problem_.sizes.positions);
    scale(q, nullptr, by);
    for (int64_t tile = 0; tile < tiling_.count; ++tile) {
      weigh_signs(tile, false);
      const int64_t p = tiling_.begin(tile);
      correlation.add(partial, signs_.get(), {tiling_.ld, 1}, tile_of(problem_.features_adv, n, p),
                      strides_of(problem_.features_adv), tile_of(problem_.features, n, p),
                      strides_of(problem_.features), tiling_.columns(tile));
    }
    for (int64_t c = 0; c < classes(); ++c) {
      for (int64_t k = 0; k < channels(); ++k) {
        partial[c * channels() + k] += by * r[c] * sums[k];
      }
    }
  }

 private:
  int64_t channels() const { return problem_.sizes.channels; }
  int64_t classes() const { return problem_.sizes.classes; }
  int64_t positions() const { return problem_.sizes.positions; }
  int8_t* saved_signs(int64_t tile) const { return saved_signs_ + tiling_.begin(tile); }
  T* maps(int64_t tile) const { return maps_.get() + tile * classes() * tiling_.ld; }

  void make_tile(int64_t n, int64_t tile) {
    const int64_t p = tiling_.begin(tile), columns = tiling_.columns(tile);
    const T* const features = tile_of(problem_.features, n, p);
    const T* const features_adv = tile_of(problem_.features_adv, n, p);
    const Strides adv_at = strides_of(problem_.features_adv),
                  features_at = strides_of(problem_.features);
    if (vector_.product_of_difference(maps(tile), tiling_.ld, problem_.weight, features_adv, adv_at,
                                      features, features_at, classes(), channels(), columns,
                                      sums.data(), panel_.get())) {
      return;
    }
    vector_.load(panel_.get(), tiling_.ld, features_adv, adv_at, features, features_at, channels(),
                 columns, sums.data());
    vector_.product(maps(tile), tiling_.ld, problem_.weight, {channels(), 1}, panel_.get(),
                    tiling_.ld, classes(), channels(), columns, /*add=*/false);
  }

  void scale(const double* q, const double* r, double by) {
    for (int64_t c = 0; c < classes(); ++c) {
      scaled_[c] = static_cast<T>(by * q[c]);
      scaled_[classes() + c] = r ? static_cast<T>(by * r[c]) : T(0);
    }
  }

  // target[n] = W^T (scaled q sign(maps) + scaled r)
  void pull_back(const Maps<T>& target, int64_t n, bool with_offsets) {
    for (int64_t tile = 0; tile < tiling_.count; ++tile) {
      weigh_signs(tile, with_offsets);
      T* const out = &target.at(n, 0, tiling_.begin(tile));
      if (target.position_stride == 1) {
        vector_.product(out, target.channel_stride, problem_.weight, {1, channels()}, signs_.get(),
                        tiling_.ld, channels(), classes(), tiling_.columns(tile), /*add=*/false);
      } else {  // channels_last: a row for each position
        vector_.product(out, target.position_stride, signs_.get(), {1, tiling_.ld}, problem_.rows,
                        problem_.ld, tiling_.columns(tile), classes(), channels(), /*add=*/false);
      }
    }
  }

  // target[n] = -source[n] - W^T (scaled r), where the last term is one number per channel.
  void negate_and_shift(const Maps<T>& target, const Maps<T>& source, int64_t n) {
    std::fill(means_.begin(), means_.end(), T(0));
    for (int64_t c = 0; c < classes(); ++c) {
      const T by = scaled_[classes() + c];
      for (int64_t k = 0; k < channels(); ++k)
        means_[k] -= by * problem_.weight[c * channels() + k];
    }
    if (target.position_stride == 1 && source.position_stride == 1) {
      for (int64_t k = 0; k < channels(); ++k) {
        T* const to = &target.at(n, k, 0);
        const T* const from = &source.at(n, k, 0);
        for (int64_t p = 0; p < positions(); ++p) to[p] = means_[k] - from[p];
      }
      return;
    }
    for (int64_t p = 0; p < positions(); ++p) {
      for (int64_t k = 0; k < channels(); ++k) target.at(n, k, p) = means_[k] - source.at(n, k, p);
    }
  }

  void weigh_signs(int64_t tile, bool with_offsets) {
    const T* const offsets = with_offsets ? scaled_.data() + classes() : nullptr;
    if (saved_signs_) {
      vector_.saved_signs(signs_.get(), tiling_.ld, saved_signs(tile), positions(), scaled_.data(),
                          offsets, classes(), tiling_.columns(tile));
    } else {
      vector_.signs(signs_.get(), maps(tile), scaled_.data(), offsets, classes(), tiling_.ld);
    }
  }

  const Primitives<T>& vector_ = primitives<T>();
  const Problem<T>& problem_;
  const Tiling<T> tiling_;
  const Scratch<T> panel_;         // [K, tile] A' - A, or work memory of product_of_difference
  const Scratch<T> maps_;          // [tiles, C, tile]
  const Scratch<T> signs_;         // [C, tile]
  std::vector<T> means_;           // [K], the sum of the two gradients
  int8_t* saved_signs_ = nullptr;  // [C, u]

 public:
  std::vector<double> sums;  // [K], of A' over positions

 private:
  std::vector<T> scaled_;  // q, then r
};

template <typename T>
void forward(const Problem<T>& problem, const int64_t* labels, const T* bias, bool weighted,
             T* value, T* coefficient, const Maps<T>& grad_features_adv, int8_t* signs) {
  const int64_t classes = problem.sizes.classes, signs_an_image = classes * problem.sizes.positions;
  share_out(problem.sizes.images, [&](const auto& next) {
    Image<T> image(problem);
    std::vector<double> size(classes), logit(classes), q(classes), r(classes);
    HostBlock alone(1, 0, 0, 0);
    double shared = 0;
    for (int64_t n = next(); n < problem.sizes.images; n = next()) {
      if (signs) image.save_signs_at(signs + n * signs_an_image);
      image.make_maps(n);
      const auto emit = [&](int64_t c, double by_size, double by_logit) {
        q[c] = by_size;
        r[c] = by_logit;
      };
      image.distances_and_logits(size.data(), logit.data());
      if (bias) {
        for (int64_t c = 0; c < classes; ++c) logit[c] += bias[c];
      }
      value[n] = static_cast<T>(discrepancy_softmax(alone, &shared, size.data(), logit.data(),
                                                    classes, labels[n], weighted, emit));
      for (int64_t c = 0; c < classes; ++c) {
        coefficient[(2 * n) * classes + c] = static_cast<T>(q[c]);
        coefficient[(2 * n + 1) * classes + c] = static_cast<T>(r[c]);
      }
      if (grad_features_adv.data) {
        image.gradients({}, grad_features_adv, n, q.data(), r.data(), 1.0);
      }
    }
  });
}

template <typename T>
void backward(const Problem<T>& problem, const T* grad, const T* coefficient, int8_t* signs,
              const Maps<T>& grad_features, const Maps<T>& grad_features_adv,
              double* weight_partial, int64_t parts) {
  const int64_t classes = problem.sizes.classes, images = problem.sizes.images;
  share_out(parts, [&](const auto& next) {
    Image<T> image(problem);
    std::optional<Correlation<T>> correlation;
    if (weight_partial) correlation.emplace(problem.sizes, Tiling<T>(problem.sizes), 1.0);
    std::vector<double> q(classes), r(classes);
    for (int64_t part = next(); part < parts; part = next()) {
      double* const out =
          weight_partial ? weight_partial + part * classes * problem.sizes.channels : nullptr;
      for (int64_t n = images * part / parts; n < images * (part + 1) / parts; ++n) {
        const T* from = coefficient + 2 * n * classes;
        q.assign(from, from + classes);
        r.assign(from + classes, from + 2 * classes);
        if (signs) {
          image.save_signs_at(signs + n * classes * problem.sizes.positions);
          if (out) image.sum_channels(n);
        } else {
          image.make_maps(n);
        }
        if (grad_features.data || grad_features_adv.data) {
          image.gradients(grad_features, grad_features_adv, n, q.data(), r.data(), grad[n]);
        }
        if (out) image.weight_gradient(*correlation, out, n, q.data(), r.data(), grad[n]);
      }
      if (out) correlation->flush(out);
    }
  });
}

// W, rows padded to whole vectors with zeros, for a gradient in channels_last; memcpy is fastest.
at::Tensor in_whole_vectors(const at::Tensor& weight, bool wanted) {
  const int64_t width =
      weight.scalar_type() == at::kDouble ? primitives<double>().width : primitives<float>().width;
  const int64_t missing = Tiling<float>::round_up(weight.size(1), width) - weight.size(1);
  if (!wanted || !missing) return weight;
  const int64_t rows = weight.size(0), from = weight.size(1) * weight.element_size(),
                to = from + missing * weight.element_size();
  auto padded = at::empty({rows, weight.size(1) + missing}, weight.options());
  const char* const source = static_cast<const char*>(weight.const_data_ptr());
  char* const target = static_cast<char*>(padded.mutable_data_ptr());
  for (int64_t row = 0; row < rows; ++row) {
    std::memcpy(target + row * to, source + row * from, from);
    std::memset(target + row * to + from, 0, to - from);
  }
  return padded;
}

bool is_channels_last(const at::Tensor& maps) { return maps.dim() == 4 && !maps.is_contiguous(); }

at::Tensor empty_signs(const Sizes& sizes, const at::Tensor& like, int64_t save) {
  if (save != kSaveSigns) return at::empty({0}, like.options());
  return at::empty({sizes.images, sizes.classes, sizes.positions}, like.options().dtype(at::kChar));
}

void check_label_values(const at::Tensor& labels, int64_t classes) {
  const int64_t* label = labels.data_ptr<int64_t>();
  for (int64_t n = 0; n < labels.numel(); ++n) {
    TORCH_CHECK_VALUE(label[n] >= 0 && label[n] < classes, "discrepancy: labels must lie in 0..",
                      classes - 1, ", got ", label[n], ".");
  }
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> discrepancy(
    const at::Tensor& features, const at::Tensor& features_adv, const at::Tensor& weight,
    const at::Tensor& labels, const std::optional<at::Tensor>& bias, bool weighted, int64_t save) {
  check_discrepancy(features, features_adv, weight, labels, bias);
  const auto sizes = sizes_of(features, weight);
  const auto t = labels.contiguous();
  check_label_values(t, sizes.classes);

  const auto type = compute_type(features);
  const auto clean = with_regular_positions(as_type(features, type));
  const auto adv = with_regular_positions(as_type(features_adv, type));
  const auto w = as_type(weight, type).contiguous();
  const auto b = bias ? as_type(*bias, type).contiguous() : at::Tensor();
  auto value = at::empty({sizes.images}, adv.options());
  auto coefficient = at::empty({sizes.images, 2, sizes.classes}, adv.options());
  const bool with_grad = save == kSaveGradient;
  auto saved = with_grad ? empty_maps_like(features_adv, type) : empty_signs(sizes, features, save);
  const auto rows = in_whole_vectors(w, with_grad && is_channels_last(saved));
  const auto run = [&]<typename T>(T) {
    const Problem<T> problem{sizes,           maps_of<T>(clean),  maps_of<T>(adv),
                             w.data_ptr<T>(), rows.data_ptr<T>(), rows.size(1)};
    forward<T>(problem, t.data_ptr<int64_t>(), bias ? b.data_ptr<T>() : nullptr, weighted,
               value.data_ptr<T>(), coefficient.data_ptr<T>(),
               with_grad ? maps_of<T>(saved) : Maps<T>{},
               save == kSaveSigns ? saved.data_ptr<int8_t>() : nullptr);
  };
  type == at::kDouble ? run(double{}) : run(float{});
  const auto out = features.scalar_type();
  return {as_type(value, out), with_grad ? as_laid_out(saved, features_adv) : saved, coefficient};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> discrepancy_backward(
    const at::Tensor& grad, const at::Tensor& features, const at::Tensor& features_adv,
    const at::Tensor& weight, const at::Tensor& coefficient, const at::Tensor& signs,
    bool need_features, bool need_features_adv, bool need_weight) {
  check_maps("discrepancy", features, weight);
  check_like("discrepancy", features, features_adv);
  const auto sizes = sizes_of(features, weight);
  const auto type = compute_type(features);
  TORCH_CHECK(grad.dim() == 1 && grad.size(0) == sizes.images, "discrepancy: grad must be [N].");
  TORCH_CHECK(
      coefficient.numel() == 2 * sizes.images * sizes.classes && coefficient.scalar_type() == type,
      "discrepancy: coefficients must be the forward pass's.");
  const bool known = signs.numel() > 0;
  TORCH_CHECK(!known || (signs.numel() == sizes.images * sizes.classes * sizes.positions &&
                         signs.scalar_type() == at::kChar),
              "discrepancy: signs must be the forward pass's, or empty.");

  const auto clean = with_regular_positions(as_type(features, type));
  const auto adv = with_regular_positions(as_type(features_adv, type));
  const auto w = as_type(weight, type).contiguous();
  const auto g = as_type(grad, type).contiguous();
  const auto coefficients = coefficient.contiguous(), saved_signs = signs.contiguous();
  const auto nothing = at::empty({0}, adv.options());
  auto grad_features = need_features ? empty_maps_like(features, type) : nothing;
  auto grad_features_adv = need_features_adv ? empty_maps_like(features_adv, type) : nothing;
  const int64_t parts = need_weight ? parts_of(sizes) : sizes.images;
  auto partial = at::zeros({need_weight ? parts : 0, sizes.classes, sizes.channels},
                           adv.options().dtype(at::kDouble));
  const auto rows =
      in_whole_vectors(w, (need_features && is_channels_last(grad_features)) ||
                              (need_features_adv && is_channels_last(grad_features_adv)));
  const auto run = [&]<typename T>(T) {
    const Problem<T> problem{sizes,           maps_of<T>(clean),  maps_of<T>(adv),
                             w.data_ptr<T>(), rows.data_ptr<T>(), rows.size(1)};
    backward<T>(problem, g.data_ptr<T>(), coefficients.data_ptr<T>(),
                known ? saved_signs.data_ptr<int8_t>() : nullptr,
                need_features ? maps_of<T>(grad_features) : Maps<T>{},
                need_features_adv ? maps_of<T>(grad_features_adv) : Maps<T>{},
                need_weight ? partial.data_ptr<double>() : nullptr, parts);
  };
  type == at::kDouble ? run(double{}) : run(float{});
  const auto out = features.scalar_type();
  return {need_features ? as_laid_out(grad_features, features) : nothing.to(out),
          need_features_adv ? as_laid_out(grad_features_adv, features_adv) : nothing.to(out),
          (need_weight ? partial.sum(0) : nothing).to(out)};
}

}  // namespace

TORCH_LIBRARY_IMPL(fastinterp, CPU, m) {
  m.impl("discrepancy", &discrepancy);
  m.impl("discrepancy_backward", &discrepancy_backward);
}

}  // namespace fastinterp::cpu
