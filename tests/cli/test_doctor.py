"""`fastinterp doctor`: what serves here, and what to do where something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastinterp._utils.toolkit import Toolkit
from fastinterp.cli import doctor, main


def test_doctor_says_what_serves(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for what in ("fastinterp", "python", "torch", "CPU capability", "kernels", "ops on cpu"):
        assert f"\n{what} " in f"\n{out}"


UNBUILT = {"built": False, "cuda": False, "cuda_archs": []}
BUILT = {"built": True, "cuda": False, "cuda_archs": []}


@pytest.mark.parametrize(
    ("info", "toolkit", "advice"),
    [
        (UNBUILT, None, "build the kernels"),
        ({**BUILT, "torch": "1.0"}, None, "built for torch 1.0"),
        (BUILT, None, "install the CUDA toolkit 13.0 or set CUDA_HOME"),
        (BUILT, Toolkit(Path("/t"), "12.8"), "install the CUDA toolkit 13.0, which torch"),
        (BUILT, Toolkit(Path("/t"), "13.1"), "To build the CUDA kernels, run"),
    ],
)
def test_doctor_advises(
    info: dict, toolkit: Toolkit | None, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "build_info", lambda: info)
    monkeypatch.setattr(doctor, "find_toolkit", lambda: toolkit)
    monkeypatch.setattr(doctor.torch.version, "cuda", "13.0")
    assert any(advice in sentence for sentence in doctor.examine().advice)


@pytest.mark.parametrize(
    ("archs", "ptx", "capability", "served"),
    [
        (["9.0"], [], (9, 0), True),
        (["9.0"], [], (10, 0), False),
        (["9.0"], ["9.0"], (10, 0), True),
        (["8.0"], [], (8, 6), True),
        (["8.6"], [], (8, 0), False),
        (["9.0a"], [], (9, 0), True),
        (["9.0"], ["9.0"], (8, 0), False),
    ],
)
def test_doctor_knows_which_gpus_the_kernels_serve(
    archs: list[str], ptx: list[str], capability: tuple[int, int], served: bool
) -> None:
    info = {"cuda_archs": archs, "cuda_ptx": ptx}
    assert doctor.serves(info, capability) == served


def test_doctor_notices_an_op_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no kernel image is available\nmore")

    monkeypatch.setattr(doctor.ops, "cam", broken)
    found = doctor.examine()
    assert not found.usable
    assert ("ops on cpu", "fail: no kernel image is available") in found.lines
