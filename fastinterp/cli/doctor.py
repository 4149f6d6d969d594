"""`fastinterp doctor`: what works on this machine, what is missing, and what to do about it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from typing import Any

import torch

from .. import ops
from .._utils.toolkit import find_toolkit
from .._version import __version__
from ..ops import backend, build_info

REBUILD = "run `pip install --no-build-isolation -e .` in the source folder"


@dataclass
class Findings:
    """What was found.

    Attributes:
        lines: (item, state).
        advice: one sentence for each thing that is missing.
        usable: whether fastinterp works here at all.
    """

    lines: list[tuple[str, str]] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    usable: bool = True

    def say(self, item: str, state: object) -> None:
        self.lines.append((item, str(state)))

    def text(self) -> str:
        width = max(len(item) for item, _ in self.lines)
        body = [f"{item.ljust(width)}  {state}" for item, state in self.lines]
        todo = [f"- {sentence}" for sentence in self.advice] or ["Nothing is missing."]
        return "\n".join([*body, "", *todo])


def examine() -> Findings:
    """Look at versions, kernels, GPUs and the toolkit, and run one op on each device."""
    found = Findings()
    info = build_info()
    found.say("fastinterp", __version__)
    found.say("python", f"{platform.python_version()} ({platform.machine()})")
    found.say("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    found.say("CPU capability", torch.backends.cpu.get_cpu_capability())
    _kernels(found, info)
    _gpus(found, info)
    _toolkit(found, info)
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        _try_op(found, device)
    return found


def _kernels(found: Findings, info: dict[str, Any]) -> None:
    if not info["built"]:
        found.say("kernels", "not built; plain torch is used, which is correct but slower")
        found.advice.append(f"To build the kernels, {REBUILD}.")
        return
    names = {"torch": "torch", "compiler": "compiler", "cpu_vectors": "CPU vectors"}
    facts = [f"{name} {info[key]}" for key, name in names.items() if info.get(key)]
    found.say("kernels", ", ".join(["built", *facts]))
    ptx = info.get("cuda_ptx", [])
    archs = [f"{arch}+PTX" if arch in ptx else arch for arch in info["cuda_archs"]]
    found.say("CUDA kernels", ", ".join(archs) if info["cuda"] else "not built")
    if info.get("torch") not in (None, torch.__version__):
        found.advice.append(
            f"The kernels were built for torch {info['torch']}, but torch {torch.__version__} is "
            f"installed; to build them again, {REBUILD}."
        )
    if os.environ.get("FASTINTERP_BACKEND") == "reference":
        found.advice.append(
            "FASTINTERP_BACKEND=reference turns the kernels off; unset it to use them."
        )


def _gpus(found: Findings, info: dict[str, Any]) -> None:
    count = torch.cuda.device_count()
    if torch.version.cuda is None:
        found.say("GPUs", "none: this torch is not a CUDA build")
        found.advice.append(
            "To use a GPU, install a CUDA build of torch and build the kernels again."
        )
    elif count == 0:
        found.say("GPUs", f"none found by torch (CUDA {torch.version.cuda})")
        found.advice.append(
            "There is no GPU here, or torch cannot use its driver (see nvidia-smi); everything "
            "runs on the CPU."
        )
    for number in range(count):
        major, minor = torch.cuda.get_device_capability(number)
        found.say(f"GPU {number}", f"{torch.cuda.get_device_name(number)}, {major}.{minor}")
        if info["cuda"] and not serves(info, (major, minor)):
            found.advice.append(
                f"The kernels have no code for GPU {number}; set "
                f"TORCH_CUDA_ARCH_LIST={major}.{minor} and {REBUILD}."
            )


def _toolkit(found: Findings, info: dict[str, Any]) -> None:
    toolkit = find_toolkit()
    found.say("CUDA toolkit", f"{toolkit.version} in {toolkit.home}" if toolkit else "not found")
    wanted = torch.version.cuda
    if info["cuda"] or wanted is None:
        return
    first = ""
    if toolkit is None:
        first = f"install the CUDA toolkit {wanted} or set CUDA_HOME to it, then "
    elif toolkit.major != int(wanted.split(".")[0]):
        first = f"install the CUDA toolkit {wanted}, which torch was built with, then "
    found.advice.append(f"To build the CUDA kernels, {first}{REBUILD}.")


def serves(info: dict[str, Any], capability: tuple[int, int]) -> bool:
    """Whether a GPU can run the kernels: code of its own generation, or PTX that is not newer."""
    compiled = [_version(arch) for arch in info["cuda_archs"]]
    portable = [_version(arch) for arch in info.get("cuda_ptx", [])]
    own = any(major == capability[0] and minor <= capability[1] for major, minor in compiled)
    return own or any(arch <= capability for arch in portable)


def _version(arch: str) -> tuple[int, int]:
    """ "9.0" or "9.0a" -> (9, 0)."""
    major, _, minor = arch.partition(".")
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


def _try_op(found: Findings, device: str) -> None:
    try:
        features = torch.ones(2, 3, 4, 4, device=device)
        total = float(ops.cam(features, torch.ones(5, 3, device=device)).sum())
    except RuntimeError as error:
        found.say(f"ops on {device}", f"fail: {str(error).splitlines()[0]}")
        found.advice.append(f"Ops fail on {device}; to build the kernels again, {REBUILD}.")
        found.usable = False
        return
    right = abs(total - 30.0) < 1e-4  # 2 images x 5 classes x a logit of 3
    found.say(f"ops on {device}", f"work (backend {backend(device)})" if right else "WRONG RESULT")
    if not right:
        found.advice.append(f"Ops give wrong results on {device}; please report this output.")
        found.usable = False
