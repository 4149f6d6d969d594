// Registers the CUDA ops: launch/<op>.h with kernels/<op>.cuh. It is the only file that nvcc
// compiles, since torch's headers take nvcc longer than all of our kernels.
#include <torch/library.h>

#include "../launch/cam.h"
#include "../launch/climb.h"
#include "../launch/discrepancy.h"
#include "../launch/kendall_tau.h"
#include "../launch/pgd_step.h"

namespace fastinterp {

TORCH_LIBRARY_IMPL(fastinterp, CUDA, m) {
  m.impl("cam", &OnDevice<&launch_cam<CudaLauncher>>::call);
  m.impl("cam_backward_features", &OnDevice<&launch_cam_backward_features<CudaLauncher>>::call);
  m.impl("cam_backward_weight", &OnDevice<&launch_cam_backward_weight<CudaLauncher>>::call);
  m.impl("climb", &OnDevice<&launch_climb<CudaLauncher>>::call);
  m.impl("climb_fits", &OnDevice<&launch_climb_fits<CudaLauncher>>::call);
  m.impl("discrepancy", &OnDevice<&launch_discrepancy<CudaClusterLauncher>>::call);
  m.impl("discrepancy_backward",
         &OnDevice<&launch_discrepancy_backward<CudaClusterLauncher>>::call);
  m.impl("kendall_tau", &OnDevice<&launch_kendall_tau<CudaLauncher>>::call);
  m.impl("pgd_step", &OnDevice<&launch_pgd_step<CudaLauncher>>::call);
  m.impl("pgd_step_", &OnDevice<&launch_pgd_step_<CudaLauncher>>::call);
}

}  // namespace fastinterp
