// Kendall's tau-b on a GPU: kendall.h with the launcher that starts kernels.
#include <torch/library.h>

#include "kendall.h"

namespace fastinterp {

TORCH_LIBRARY_IMPL(fastinterp, CUDA, m) {
  m.impl("kendall_tau", &OnDevice<&blocks::kendall_tau<CudaLauncher>>::call);
}

}  // namespace fastinterp
