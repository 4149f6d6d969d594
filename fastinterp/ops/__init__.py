"""Fused operations, each with a plain torch reference beside it (`fastinterp.ops.reference`)."""

from . import _backend, reference
from . import cam as _cam
from . import discrepancy as _discrepancy
from . import image_gradient as _image_gradient
from . import kendall_tau as _kendall_tau
from . import pgd_step as _pgd_step
from ._backend import backend, build_info

if _backend.extension() is not None:
    for _op in (_cam, _discrepancy, _image_gradient, _kendall_tau, _pgd_step):
        _op.register()

from .cam import cam
from .discrepancy import discrepancy
from .discrepancy_and_gradient import discrepancy_and_gradient
from .kendall_tau import kendall_tau
from .pgd_step import pgd_step

__all__ = [
    "backend",
    "build_info",
    "cam",
    "discrepancy",
    "discrepancy_and_gradient",
    "kendall_tau",
    "pgd_step",
    "reference",
]
