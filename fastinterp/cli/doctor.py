"""`fastinterp doctor`: what works on this machine, what is missing, what to do about it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from typing import Any

import torch

from .. import ops
from .._utils.toolkit import Toolkit, find_toolkit
from .._version import __version__
from ..ops import backend, build_info

REBUILD = "`pip install --no-build-isolation -e .` in the source folder"


@dataclass
class Findings:
    """What was found.

    Attributes:
        lines: (what, how it is).
        advice: what to do about each thing missing, one sentence each.
        usable: whether fastinterp works here at all.
    """

    lines: list[tuple[str, str]] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    usable: bool = True

    def say(self, what: str, how: object) -> None:
        self.lines.append((what, str(how)))

    def text(self) -> str:
        width = max(len(what) for what, _ in self.lines)
        body = [f"{what.ljust(width)}  {how}" for what, how in self.lines]
        todo = [f"- {sentence}" for sentence in self.advice] or ["Nothing is missing."]
        return "\n".join([*body, "", *todo])


def examine() -> Findings:
    """Look at the versions, the kernels, the GPUs and the toolkit. Changes nothing."""
    found = Findings()
    info = build_info()
    toolkit = find_toolkit()
    found.say("fastinterp", __version__)
    found.say("python", f"{platform.python_version()} ({platform.machine()})")
    found.say("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    found.say("CPU capability", torch.backends.cpu.get_cpu_capability())
    _kernels(found, info)
    _gpus(found, info)
    _toolkit(found, info, toolkit)
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        _try_out(found, device)
    return found


def _kernels(found: Findings, info: dict[str, Any]) -> None:
    if not info["built"]:
        found.say("kernels", "not built; plain torch serves, correct but slower")
        found.advice.append(f"Build the kernels: {REBUILD}.")
        return
    names = {"torch": "torch", "compiler": "compiler", "cpu_vectors": "CPU vectors"}
    made = [f"{name} {info[key]}" for key, name in names.items() if info.get(key)]
    found.say("kernels", ", ".join(["built", *made]))
    found.say("CUDA kernels", _archs(info) if info["cuda"] else "not built")
    if info.get("torch") not in (None, torch.__version__):
        found.advice.append(
            f"The kernels were built for torch {info['torch']}, and torch {torch.__version__} runs "
            f"them; build them again: {REBUILD}."
        )
    if os.environ.get("FASTINTERP_BACKEND") == "reference":
        found.advice.append(
            "FASTINTERP_BACKEND=reference makes plain torch serve; unset it to use the kernels."
        )


def _gpus(found: Findings, info: dict[str, Any]) -> None:
    if torch.version.cuda is None:
        found.say("GPUs", "none: this torch is not a CUDA build")
        found.advice.append(
            "To use a GPU, install a CUDA build of torch and build the kernels again."
        )
        return
    count = torch.cuda.device_count()
    if count == 0:
        found.say("GPUs", f"none seen by torch (CUDA {torch.version.cuda})")
        found.advice.append(
            "There is no GPU here, or torch cannot use its driver (see nvidia-smi); "
            "the CPU serves everything."
        )
        return
    for number in range(count):
        major, minor = torch.cuda.get_device_capability(number)
        found.say(f"GPU {number}", f"{torch.cuda.get_device_name(number)}, {major}.{minor}")
        if info["cuda"] and not serves(info, (major, minor)):
            found.advice.append(
                f"The kernels hold no code for GPU {number}; build them again with "
                f"TORCH_CUDA_ARCH_LIST={major}.{minor}: {REBUILD}."
            )


def _toolkit(found: Findings, info: dict[str, Any], toolkit: Toolkit | None) -> None:
    if toolkit is None:
        found.say("CUDA toolkit", "not found")
    else:
        found.say("CUDA toolkit", f"{toolkit.version} in {toolkit.home}")
    if info["cuda"] or torch.version.cuda is None:
        return
    if toolkit is None:
        found.advice.append(
            f"To build the CUDA kernels, install the CUDA toolkit {torch.version.cuda} or set "
            f"CUDA_HOME to it, then {REBUILD}."
        )
    elif toolkit.major != int(torch.version.cuda.split(".")[0]):
        found.advice.append(
            f"To build the CUDA kernels, install the toolkit that torch was built with "
            f"({torch.version.cuda}), then {REBUILD}."
        )
    else:
        found.advice.append(f"The toolkit is there; build the CUDA kernels: {REBUILD}.")


def serves(info: dict[str, Any], capability: tuple[int, int]) -> bool:
    """Whether a GPU can run the kernels: code of its own generation, or PTX that is no newer."""
    compiled = [_version(arch) for arch in info["cuda_archs"]]
    portable = [_version(arch) for arch in info.get("cuda_ptx", [])]
    own = any(major == capability[0] and minor <= capability[1] for major, minor in compiled)
    return own or any(arch <= capability for arch in portable)


def _version(arch: str) -> tuple[int, int]:
    """ "9.0" or "9.0a" -> (9, 0)."""
    major, _, minor = arch.partition(".")
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


def _archs(info: dict[str, Any]) -> str:
    portable = info.get("cuda_ptx", [])
    return ", ".join(f"{arch}+PTX" if arch in portable else arch for arch in info["cuda_archs"])


def _try_out(found: Findings, device: str) -> None:
    """Run one op there: what is installed may still not run."""
    try:
        features = torch.ones(2, 3, 4, 4, device=device)
        total = float(ops.cam(features, torch.ones(5, 3, device=device)).sum())
    except RuntimeError as error:
        found.say(f"ops on {device}", f"fail: {str(error).splitlines()[0]}")
        found.advice.append(f"Ops fail on {device}; build the kernels again: {REBUILD}.")
        found.usable = False
        return
    right = abs(total - 30.0) < 1e-4  # 2 images x 5 classes x a logit of 3
    found.say(f"ops on {device}", f"served by {backend(device)}" if right else "WRONG RESULT")
    if not right:
        found.advice.append(f"Ops give wrong results on {device}; please report this text.")
        found.usable = False
