// Registers every GPU op a second time, as emulated_<op>: HostBlock runs the kernel's blocks one
// after another on the CPU. Tests compare these ops with plain torch, so the arithmetic, the
// indexing and the launch sizes of a GPU are tested without one. A missing barrier does not show
// here; `make check-device` finds those.
#include <torch/library.h>

#include "../../csrc/launch/cam.h"
#include "../../csrc/launch/climb.h"
#include "../../csrc/launch/discrepancy.h"
#include "../../csrc/launch/kendall_tau.h"
#include "../../csrc/launch/pgd_step.h"

namespace fastinterp {

TORCH_LIBRARY_FRAGMENT(fastinterp, m) {
  m.def("emulated_cam", &launch_cam<HostLauncher>);
  m.def("emulated_cam_backward_features", &launch_cam_backward_features<HostLauncher>);
  m.def("emulated_cam_backward_weight", &launch_cam_backward_weight<HostLauncher>);
  m.def("emulated_climb", &launch_climb<HostLauncher>);
  m.def("emulated_climb_fits", &launch_climb_fits<HostLauncher>);
  m.def("emulated_discrepancy", &launch_discrepancy<HostClusterLauncher>);
  m.def("emulated_discrepancy_in_steps", &launch_discrepancy<HostStepsLauncher>);
  m.def("emulated_discrepancy_backward", &launch_discrepancy_backward<HostClusterLauncher>);
  m.def("emulated_discrepancy_backward_in_steps", &launch_discrepancy_backward<HostStepsLauncher>);
  m.def("emulated_pgd_step", &launch_pgd_step<HostLauncher>);
  m.def("emulated_kendall_tau", &launch_kendall_tau<HostLauncher>);
}

}  // namespace fastinterp
