// The ops on a GPU: the headers beside this file, with the launchers that start kernels. One file
// for all of them, since reading torch's headers takes nvcc longer than any of our kernels.
#include <torch/library.h>

#include "../launch/cam.h"
#include "../launch/discrepancy.h"
#include "../launch/kendall_tau.h"
#include "../launch/pgd_step.h"

namespace fastinterp {

TORCH_LIBRARY_IMPL(fastinterp, CUDA, m) {
  m.impl("cam", &OnDevice<&blocks::cam<CudaLauncher>>::call);
  m.impl("cam_backward_features", &OnDevice<&blocks::cam_backward_features<CudaLauncher>>::call);
  m.impl("cam_backward_weight", &OnDevice<&blocks::cam_backward_weight<CudaLauncher>>::call);
  m.impl("discrepancy", &OnDevice<&blocks::discrepancy<CudaClusterLauncher>>::call);
  m.impl("discrepancy_backward",
         &OnDevice<&blocks::discrepancy_backward<CudaClusterLauncher>>::call);
  m.impl("kendall_tau", &OnDevice<&blocks::kendall_tau<CudaLauncher>>::call);
  m.impl("pgd_step", &OnDevice<&blocks::pgd_step<CudaLauncher>>::call);
  m.impl("pgd_step_", &OnDevice<&blocks::pgd_step_<CudaLauncher>>::call);
}

}  // namespace fastinterp
