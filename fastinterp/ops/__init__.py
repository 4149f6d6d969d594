"""Fused operations, each with a reference in plain torch (`fastinterp.ops.reference`)."""

from . import reference
from ._backend import backend, build_info
from .cam import cam
from .discrepancy import discrepancy, discrepancy_and_gradient
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
