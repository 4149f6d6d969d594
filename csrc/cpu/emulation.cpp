// The GPU's block programs, run block after block on the CPU under names of their own. Tests
// compare them with the reference, so the arithmetic, indexing and launch sizes that a GPU will
// use are checked where there is none. A missing barrier does not show here: `make check-device`.
#include <torch/library.h>

#include "../cuda/cam.h"
#include "../cuda/discrepancy.h"
#include "../cuda/kendall.h"
#include "../cuda/pgd_step.h"

namespace fastinterp {

TORCH_LIBRARY_FRAGMENT(fastinterp, m) {
  m.def("emulated_cam", &blocks::cam<HostLauncher>);
  m.def("emulated_cam_backward_features", &blocks::cam_backward_features<HostLauncher>);
  m.def("emulated_cam_backward_weight", &blocks::cam_backward_weight<HostLauncher>);
  m.def("emulated_discrepancy", &blocks::discrepancy<HostClusterLauncher>);
  m.def("emulated_discrepancy_in_steps", &blocks::discrepancy<HostStepsLauncher>);
  m.def("emulated_discrepancy_backward", &blocks::discrepancy_backward<HostClusterLauncher>);
  m.def("emulated_discrepancy_backward_in_steps", &blocks::discrepancy_backward<HostStepsLauncher>);
  m.def("emulated_pgd_step", &blocks::pgd_step<HostLauncher>);
  m.def("emulated_kendall_tau", &blocks::kendall_tau<HostLauncher>);
}

}  // namespace fastinterp
