"""The compiler's report of kernels, as a page."""

from __future__ import annotations

import pytest

from benchmarks.registers import Kernel, kernels, page

ENTRY = """\
ptxas info    : Compiling entry function 'void fastinterp::run_program<fastinterp::{}>' for 'sm_90'
ptxas info    : Function properties for void fastinterp::run_program<fastinterp::{}>
    {} bytes stack frame, {} bytes spill stores, 0 bytes spill loads
ptxas info    : Used {} registers, used 1 barriers
"""


def test_each_kernel_is_found_with_its_type_and_what_it_takes() -> None:
    text = "ptxas info    : 0 bytes gmem\n"
    text += ENTRY.format(*["CamForwardKernel<float>"] * 2, 0, 0, 62)
    text += ENTRY.format(*["PgdStepLinfKernel<c10::Half, 8>"] * 2, 16, 24, 128)
    found = kernels(text)
    assert found == [
        Kernel("CamForwardKernel", "float32", 62, 0),
        Kernel("PgdStepLinfKernel<8>", "float16", 128, 40),
    ]
    shown = page(found, "13.0")
    assert "| CamForwardKernel | 62 (4) | - | - | - | 0 |" in shown
    assert "| PgdStepLinfKernel<8> | - | - | 128 (2) | - | 40 |" in shown


def test_what_cannot_be_read_is_an_error() -> None:
    with pytest.raises(ValueError, match="no known type"):
        kernels(ENTRY.format("Other<int>", "Other<int>", 0, 0, 1))
    with pytest.raises(ValueError, match="says nothing like"):
        kernels("Compiling entry function 'CamForwardKernel<float>' for 'sm_90'")
