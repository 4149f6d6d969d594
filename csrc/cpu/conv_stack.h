// A stack of convolutions with ReLUs and max-pooling between them, and its derivative by the
// images.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <tuple>
#include <vector>

namespace fastinterp::cpu {

// A convolution of maps [in, H, W] with a kernel [out, in, k, k'].
struct Convolution {
  at::Tensor weight;  // [out, in, k, k'], float32
  at::Tensor bias;    // [out]
  int64_t stride;
  int64_t top, bottom, left, right;  // padding
  // What comes out is pooled by windows of so many rows and columns, as far apart; 1 is none. The
  // last of them end where the maps end.
  int64_t pool = 1;
};

// For images of one size. Weights are laid out once, for as many passes as follow.
class ConvStack {
 public:
  virtual ~ConvStack() = default;

  // Images [N, in, H, W] -> the last convolution's output, pooled, in channels_last, and what
  // `backward` needs to know, in bytes.
  virtual std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& x) const = 0;

  // The gradient at the output -> the gradient at the images.
  virtual at::Tensor backward(const at::Tensor& grad, const at::Tensor& saved) const = 0;
};

// With `bf16` products are of bfloat16, and so is what passes from one convolution to the next;
// sums, biases, images and outputs are float32. Throws where `has_bf16_pairs` is false.
std::unique_ptr<ConvStack> make_conv_stack(const std::vector<Convolution>& layers, int64_t height,
                                           int64_t width, bool bf16);

// Whether this processor multiplies pairs of bfloat16 in its widest vectors.
bool has_bf16_pairs();

}  // namespace fastinterp::cpu
