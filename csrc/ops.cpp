// Every op's schema, and the Python module that says how this library was built.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>

#include <array>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "cpu/conv_stack.h"
#include "cpu/vector/primitives.h"

TORCH_LIBRARY(fastinterp, m) {
  m.def("cam(Tensor features, Tensor weight) -> Tensor");
  m.def("cam_backward_features(Tensor grad, Tensor features, Tensor weight) -> Tensor");
  m.def("cam_backward_weight(Tensor grad, Tensor features, Tensor weight) -> Tensor");

  // -> D [N]; what `save` names (saved.h), or an empty tensor; coefficients [N, 2, C]: dD/dS and
  // dD/dlogits (kernels/discrepancy.cuh).
  m.def(
      "discrepancy(Tensor features, Tensor features_adv, Tensor weight, Tensor labels, "
      "Tensor? bias, bool weighted, int save) -> (Tensor, Tensor, Tensor)");
  m.def(
      "discrepancy_backward(Tensor grad, Tensor features, Tensor features_adv, Tensor weight, "
      "Tensor coefficients, Tensor signs, bool need_features, bool need_features_adv, "
      "bool need_weight) -> (Tensor, Tensor, Tensor)");
  // Plain torch, from Python (ops/discrepancy.py), for second derivatives.
  m.def(
      "discrepancy_reference(Tensor features, Tensor features_adv, Tensor weight, Tensor labels, "
      "Tensor? bias, bool weighted) -> Tensor");

  // norm: 0 linf, 1 l2, 2 l1. step_sizes and eps_rows override the numbers.
  m.def(
      "pgd_step(Tensor x_adv, Tensor grad, Tensor x, float step_size, float eps, "
      "Tensor? step_sizes, Tensor? eps_rows, float lower, float upper, int norm) -> Tensor");
  m.def(
      "pgd_step_(Tensor(a!) x_adv, Tensor grad, Tensor x, float step_size, float eps, "
      "Tensor? step_sizes, Tensor? eps_rows, float lower, float upper, int norm) -> ()");

  // All steps of a climb in the linf ball, of a stack of convolutions whose output are class maps
  // [C, h, w]. geometry: stride, top, bottom, left, right for each weight. terms: the weights of
  // cross-entropy, KL and discrepancy. -> x_adv; gradient and value before the last step.
  m.def(
      "climb(Tensor x, Tensor start, bool drawn, int steps, float step_size, float eps, "
      "Tensor? step_sizes, Tensor? eps_rows, float lower, float upper, Tensor[] weights, "
      "Tensor[] biases, int[] geometry, Tensor? bias, Tensor labels, Tensor? maps, "
      "Tensor? log_p, float[] terms, bool weighted) -> (Tensor, Tensor, Tensor)");
  // Whether a block of x's GPU has the shared memory that it needs.
  m.def("climb_fits(Tensor x, Tensor[] weights, int[] geometry) -> bool");

  m.def("kendall_tau(Tensor a, Tensor b) -> Tensor");

  // The gradient of a convolution with respect to its images [N, in, height, width], from the
  // gradient of its output; in the weight's dtype.
  m.def(
      "image_gradient(Tensor grad, Tensor weight, int height, int width, int stride, int top, "
      "int left) -> Tensor");
}

namespace {

pybind11::list split(const std::string& text) {
  pybind11::list parts;
  std::string part;
  for (const char c : text + ",") {
    if (c != ',') {
      part += c;
    } else if (!part.empty()) {
      parts.append(part);
      part.clear();
    }
  }
  return parts;
}

pybind11::dict build_info() {
  pybind11::dict info;
  info["cuda"] = FASTINTERP_WITH_CUDA != 0;
  info["cuda_archs"] = split(FASTINTERP_CUDA_ARCHS);
  info["cuda_ptx"] = split(FASTINTERP_CUDA_PTX);
  info["cuda_toolkit"] = FASTINTERP_CUDA_TOOLKIT;
  info["torch"] = FASTINTERP_TORCH_VERSION;
  info["compiler"] = __VERSION__;
  info["cpu_vectors"] = fastinterp::cpu::vector_level_name();
  return info;
}

// (weight, bias, stride, (top, bottom, left, right), pool) of each convolution.
using Described =
    std::vector<std::tuple<at::Tensor, at::Tensor, int64_t, std::array<int64_t, 4>, int64_t>>;

std::unique_ptr<fastinterp::cpu::ConvStack> conv_stack(const Described& described, int64_t height,
                                                       int64_t width, bool bf16) {
  std::vector<fastinterp::cpu::Convolution> layers;
  for (const auto& [weight, bias, stride, padding, pool] : described) {
    const auto [top, bottom, left, right] = padding;
    layers.push_back({weight, bias.contiguous(), stride, top, bottom, left, right, pool});
  }
  return fastinterp::cpu::make_conv_stack(layers, height, width, bf16);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "fastinterp's compiled kernels; importing this registers torch.ops.fastinterp.";
  m.def("build_info", &build_info, "How this extension was built, as a dict.");
  const auto without_gil = pybind11::call_guard<pybind11::gil_scoped_release>();
  using fastinterp::cpu::ConvStack;
  pybind11::class_<ConvStack>(m, "ConvStack", "See ops/conv_stack.py.")
      .def(pybind11::init(&conv_stack))
      .def("forward", &ConvStack::forward, without_gil)
      .def("backward", &ConvStack::backward, without_gil);
  m.def("has_bf16_pairs", &fastinterp::cpu::has_bf16_pairs,
        "Whether ConvStack can multiply in bfloat16 here.");
}
