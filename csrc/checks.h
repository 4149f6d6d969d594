// The checks of every backend. The public Python functions check the same things first, with better
// messages; these are for direct calls of torch.ops.fastinterp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>

#include <optional>

#include "kernels/maps.cuh"

namespace fastinterp {

inline void check_maps(const char* op, const at::Tensor& features, const at::Tensor& weight) {
  TORCH_CHECK(features.dim() == 4 && weight.dim() == 2 && features.size(1) == weight.size(1), op,
              ": features [N, K, h, w] and weight [C, K] must share K, got ", features.sizes(),
              " and ", weight.sizes(), ".");
  TORCH_CHECK(
      features.size(1) > 0 && features.size(2) > 0 && features.size(3) > 0 && weight.size(0) > 0,
      op, ": only the batch may be empty, got features ", features.sizes(), " and weight ",
      weight.sizes(), ".");
  TORCH_CHECK(features.scalar_type() == weight.scalar_type() &&
                  features.device() == weight.device() && features.is_floating_point(),
              op, ": features and weight must share a floating dtype and a device.");
}

inline void check_like(const char* op, const at::Tensor& a, const at::Tensor& b) {
  TORCH_CHECK(
      a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() && a.device() == b.device(), op,
      ": tensors must have the same shape, dtype and device, got ", a.sizes(), " ", a.scalar_type(),
      " on ", a.device(), " and ", b.sizes(), " ", b.scalar_type(), " on ", b.device(), ".");
}

inline void check_labels(const char* op, const at::Tensor& labels, const at::Tensor& features) {
  TORCH_CHECK(labels.dim() == 1 && labels.size(0) == features.size(0) &&
                  labels.scalar_type() == at::kLong && labels.device() == features.device(),
              op, ": labels must be int64 of shape [", features.size(0),
              "] on the features' device, got ", labels.scalar_type(), " ", labels.sizes(), " on ",
              labels.device(), ".");
}

inline void check_discrepancy(const at::Tensor& features, const at::Tensor& features_adv,
                              const at::Tensor& weight, const at::Tensor& labels,
                              const std::optional<at::Tensor>& bias) {
  check_maps("discrepancy", features, weight);
  check_like("discrepancy", features, features_adv);
  check_labels("discrepancy", labels, features);
  TORCH_CHECK(weight.size(0) >= 2, "discrepancy: at least 2 classes are needed, got ",
              weight.size(0), ".");
  TORCH_CHECK(
      !bias || (bias->dim() == 1 && bias->size(0) == weight.size(0) &&
                bias->scalar_type() == weight.scalar_type() && bias->device() == weight.device()),
      "discrepancy: bias must have shape [C] and be like weight.");
}

inline void check_rows(const char* op, const char* name, const std::optional<at::Tensor>& rows,
                       const at::Tensor& x) {
  if (!rows) return;
  TORCH_CHECK((rows->numel() == 1 || rows->numel() == x.size(0)) &&
                  rows->scalar_type() == x.scalar_type() && rows->device() == x.device(),
              op, ": ", name, " must hold 1 or N = ", x.size(0),
              " numbers of x's dtype on x's device.");
}

inline Sizes sizes_of(const at::Tensor& features, const at::Tensor& weight) {
  return {features.size(0), features.size(1), weight.size(0), features.size(2) * features.size(3)};
}

// Kernels need a constant stride between the positions of a map, as in contiguous and channels_last
// tensors. Other tensors are copied.
inline bool has_regular_positions(const at::Tensor& maps) {
  return maps.size(2) == 1 || maps.size(3) == 1 || maps.stride(2) == maps.size(3) * maps.stride(3);
}

inline at::Tensor with_regular_positions(const at::Tensor& maps) {
  return has_regular_positions(maps) ? maps : maps.contiguous();
}

// An empty gradient in the layout of `like`, if that is contiguous or channels_last; else
// contiguous.
inline at::Tensor empty_maps_like(const at::Tensor& like, at::ScalarType type) {
  const auto out = at::empty_like(like, like.options().dtype(type));
  const bool in_rows = out.is_contiguous() || out.is_contiguous(at::MemoryFormat::ChannelsLast);
  return in_rows ? out : at::empty(like.sizes(), out.options());
}

// `maps` in the layout of torch.empty_like(like), where empty_maps_like chose another one.
inline at::Tensor as_laid_out(const at::Tensor& maps, const at::Tensor& like) {
  if (maps.strides() == like.strides()) return maps.to(like.scalar_type());
  const auto promised = at::empty_like(like, like.options());
  if (promised.strides() == maps.strides()) return maps.to(like.scalar_type());
  return at::empty_like(like).copy_(maps);
}

template <typename T>
Maps<T> maps_of(const at::Tensor& maps) {
  const int64_t position = maps.size(3) > 1 ? maps.stride(3) : maps.stride(2);
  return {static_cast<T*>(maps.data_ptr()), maps.stride(0), maps.stride(1), position};
}

}  // namespace fastinterp
