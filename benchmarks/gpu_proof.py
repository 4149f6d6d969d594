"""Do the CUDA kernels load, run on this GPU, and compute what plain torch computes on a CPU?

FASTINTERP_BACKEND=native python -m benchmarks.gpu_proof [DEVICE]
"""

from __future__ import annotations

import sys

import torch

from benchmarks.cases import MapCase
from fastinterp import backend, build_info, ops


def main(device: str = "cuda") -> None:
    print(f"torch {torch.__version__}, built: {build_info()}")
    if backend(device) != device:
        sys.exit(f"no compiled kernels serve on {device}")
    torch.manual_seed(0)
    features, features_adv, weight, labels, _ = MapCase(4, 100, 7, 7, 10).tensors(torch.float64)
    expected = ops.reference.discrepancy(features, features_adv, weight, labels)
    singles = [t.to(device, torch.float32) for t in (features, features_adv, weight)]
    found = ops.discrepancy(*singles, labels.to(device)).double().cpu()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0.0)
    print(f"the kernels serve on {device}")


if __name__ == "__main__":
    main(*sys.argv[1:])
