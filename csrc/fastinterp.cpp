// Every op's schema, and the Python module that says how this library was built.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "autograd/find.h"
#include "cpu/conv_stack.h"
#include "cpu/vector/primitives.h"

TORCH_LIBRARY(fastinterp, m) {
  m.def("cam(Tensor features, Tensor weight) -> Tensor");
  m.def("cam_backward_features(Tensor grad, Tensor features, Tensor weight) -> Tensor");
  m.def("cam_backward_weight(Tensor grad, Tensor features, Tensor weight) -> Tensor");

  // -> D [N]; what `keep` names (keep.h), or an empty tensor; coefficients [N, 2, C] (see
  // kernels/).
  m.def(
      "discrepancy(Tensor features, Tensor features_adv, Tensor weight, Tensor labels, "
      "Tensor? bias, bool weighted, int keep) -> (Tensor, Tensor, Tensor)");
  m.def(
      "discrepancy_backward(Tensor grad, Tensor features, Tensor features_adv, Tensor weight, "
      "Tensor coefficients, Tensor signs, bool need_features, bool need_features_adv, "
      "bool need_weight) -> (Tensor, Tensor, Tensor)");
  // Plain torch, from Python (ops/discrepancy.py): what second derivatives go through.
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

  m.def("kendall_tau(Tensor a, Tensor b) -> Tensor");

  // Of a convolution of images [N, in, height, width], by its output's; of the weight's type.
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
  info["cpu_vectors"] = fastinterp::cpu::vector_level();
  return info;
}

// Ops that loops call at every step, as plain functions. They go through the same dispatcher, but
// torch.ops takes longer to read ten arguments by a schema than a batch of small images to step.
using Rows = const std::optional<at::Tensor>&;

at::Tensor pgd_step(const at::Tensor& x_adv, const at::Tensor& grad, const at::Tensor& x,
                    double step_size, double eps, Rows step_sizes, Rows eps_rows, double lower,
                    double upper, int64_t norm) {
  static const auto op = fastinterp::find<decltype(pgd_step)>("fastinterp::pgd_step");
  return op.call(x_adv, grad, x, step_size, eps, step_sizes, eps_rows, lower, upper, norm);
}

void pgd_step_(at::Tensor x_adv, const at::Tensor& grad, const at::Tensor& x, double step_size,
               double eps, Rows step_sizes, Rows eps_rows, double lower, double upper,
               int64_t norm) {
  static const auto op = fastinterp::find<decltype(pgd_step_)>("fastinterp::pgd_step_");
  op.call(x_adv, grad, x, step_size, eps, step_sizes, eps_rows, lower, upper, norm);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> discrepancy(
    const at::Tensor& features, const at::Tensor& features_adv, const at::Tensor& weight,
    const at::Tensor& labels, const std::optional<at::Tensor>& bias, bool weighted, int64_t keep) {
  static const auto op = fastinterp::find<decltype(discrepancy)>("fastinterp::discrepancy");
  return op.call(features, features_adv, weight, labels, bias, weighted, keep);
}

at::Tensor image_gradient(const at::Tensor& grad, const at::Tensor& weight, int64_t height,
                          int64_t width, int64_t stride, int64_t top, int64_t left) {
  static const auto op = fastinterp::find<decltype(image_gradient)>("fastinterp::image_gradient");
  return op.call(grad, weight, height, width, stride, top, left);
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
  m.def("pgd_step", &pgd_step, without_gil, "torch.ops.fastinterp.pgd_step, called directly.");
  m.def("pgd_step_", &pgd_step_, without_gil, "torch.ops.fastinterp.pgd_step_, called directly.");
  m.def("discrepancy", &discrepancy, without_gil,
        "torch.ops.fastinterp.discrepancy, called directly.");
  m.def("image_gradient", &image_gradient, without_gil,
        "torch.ops.fastinterp.image_gradient, called directly.");
  using fastinterp::cpu::ConvStack;
  pybind11::class_<ConvStack>(m, "ConvStack", "See ops/conv_stack.py.")
      .def(pybind11::init(&conv_stack))
      .def("forward", &ConvStack::forward, without_gil)
      .def("backward", &ConvStack::backward, without_gil);
  m.def("has_bf16_pairs", &fastinterp::cpu::has_bf16_pairs,
        "Whether ConvStack can multiply in bfloat16 here.");
}
