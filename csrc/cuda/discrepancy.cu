// The discrepancy of eq. (8) on a GPU: discrepancy.h with the launcher that starts kernels.
#include <torch/library.h>

#include "discrepancy.h"

namespace fastinterp {

TORCH_LIBRARY_IMPL(fastinterp, CUDA, m) {
  m.impl("discrepancy", &OnDevice<&blocks::discrepancy<CudaClusterLauncher>>::call);
  m.impl("discrepancy_backward", &OnDevice<&blocks::discrepancy_backward<CudaLauncher>>::call);
}

}  // namespace fastinterp
