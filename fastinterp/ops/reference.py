"""The ops in plain torch: what the kernels are compared with, and what serves without them."""

from .cam import reference as cam
from .discrepancy import reference as discrepancy
from .discrepancy import reference_and_gradient as discrepancy_and_gradient
from .kendall_tau import reference as kendall_tau
from .pgd_step import reference as pgd_step

__all__ = ["cam", "discrepancy", "discrepancy_and_gradient", "kendall_tau", "pgd_step"]
