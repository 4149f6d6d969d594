// Class activation maps on a GPU: cam.h with the launcher that starts kernels.
#include <torch/library.h>

#include "cam.h"

namespace fastinterp {

TORCH_LIBRARY_IMPL(fastinterp, CUDA, m) {
  m.impl("cam", &OnDevice<&blocks::cam<CudaLauncher>>::call);
  m.impl("cam_backward_features", &OnDevice<&blocks::cam_backward_features<CudaLauncher>>::call);
  m.impl("cam_backward_weight", &OnDevice<&blocks::cam_backward_weight<CudaLauncher>>::call);
}

}  // namespace fastinterp
