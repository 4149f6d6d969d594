// Every op's schema, and the Python module that says how this library was built.
#include <pybind11/pybind11.h>
#include <torch/library.h>

#include <string>

#include "cpu/vector/primitives.h"

TORCH_LIBRARY(fastinterp, m) {
  m.def("cam(Tensor features, Tensor weight) -> Tensor");
  m.def("cam_backward_features(Tensor grad, Tensor features, Tensor weight) -> Tensor");
  m.def("cam_backward_weight(Tensor grad, Tensor features, Tensor weight) -> Tensor");

  // -> D [N]; dD/d features_adv, or an empty tensor; coefficients [N, 2, C] (see kernels/).
  m.def(
      "discrepancy(Tensor features, Tensor features_adv, Tensor weight, Tensor labels, "
      "Tensor? bias, bool weighted, bool with_grad) -> (Tensor, Tensor, Tensor)");
  m.def(
      "discrepancy_backward(Tensor grad, Tensor features, Tensor features_adv, Tensor weight, "
      "Tensor coefficients, bool need_features, bool need_features_adv, bool need_weight) "
      "-> (Tensor, Tensor, Tensor)");
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

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "fastinterp's compiled kernels; importing this registers torch.ops.fastinterp.";
  m.def("build_info", &build_info, "How this extension was built, as a dict.");
}
