// The projected ascent step on a GPU: pgd_step.h with the launcher that starts kernels.
#include <torch/library.h>

#include "pgd_step.h"

namespace fastinterp {

TORCH_LIBRARY_IMPL(fastinterp, CUDA, m) {
  m.impl("pgd_step", &OnDevice<&blocks::pgd_step<CudaLauncher>>::call);
  m.impl("pgd_step_", &OnDevice<&blocks::pgd_step_<CudaLauncher>>::call);
}

}  // namespace fastinterp
