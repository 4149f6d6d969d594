"""Builds the kernels: the CPU kernels always, the CUDA kernels if they can be compiled.

Environment variables:
    FASTINTERP_CUDA=0|1     leave out the CUDA kernels / fail if they cannot be built
    TORCH_CUDA_ARCH_LIST    GPUs to compile for, as everywhere in torch; by default the GPUs of this
                            machine, or 9.0+PTX if it has none
    DEBUG=1                 no optimisation, with assertions
    FASTINTERP_SANITIZE=1   address and undefined-behaviour sanitizers on, as `make sanitize` does
    MAX_JOBS                number of compilers that run at once
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
DEFAULT_ARCHS = "9.0+PTX"


def load_toolkit_module():
    """Load fastinterp/_utils/toolkit.py by its path; the package cannot be imported yet."""
    spec = importlib.util.spec_from_file_location(
        "toolkit", ROOT / "fastinterp" / "_utils" / "toolkit.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def import_torch():
    try:
        import torch
    except ImportError:
        sys.exit(
            "fastinterp: torch is not installed, and the kernels are compiled against it; install "
            "torch first, then run `pip install --no-build-isolation .` (`make setup` does both)."
        )
    return torch


def choose_toolkit(torch):
    """The toolkit to build the CUDA kernels with; None to leave them out."""
    choice = os.environ.get("FASTINTERP_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        sys.exit(f"FASTINTERP_CUDA must be 0 or 1, got {choice!r}.")
    if choice == "0":
        return None
    toolkit = load_toolkit_module().find_toolkit()
    if torch.version.cuda is None:
        problem = "this torch is not a CUDA build"
    elif toolkit is None:
        problem = "no CUDA toolkit was found (set CUDA_HOME to the folder that holds bin/nvcc)"
    elif toolkit.major != int(torch.version.cuda.split(".")[0]):
        problem = (
            f"the toolkit in {toolkit.home} is CUDA {toolkit.version}, "
            f"but torch was built with CUDA {torch.version.cuda}"
        )
    else:
        return toolkit
    if choice == "1":
        sys.exit(f"FASTINTERP_CUDA=1, but the CUDA kernels cannot be built: {problem}.")
    print(f"fastinterp: building without CUDA kernels: {problem}.")
    return None


def choose_archs(torch) -> str:
    """The architectures to compile for; never left to torch, which guesses badly without a GPU."""
    if not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        found = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
        names = ";".join(f"{major}.{minor}" for major, minor in sorted(found))
        os.environ["TORCH_CUDA_ARCH_LIST"] = f"{names}+PTX" if names else DEFAULT_ARCHS
    return os.environ["TORCH_CUDA_ARCH_LIST"]


def defines(torch, toolkit, archs: str) -> list[str]:
    listed = archs.replace(",", ";").replace(" ", ";").split(";")
    with_ptx = [arch.removesuffix("+PTX") for arch in listed if arch.endswith("+PTX")]
    texts = {
        "CUDA_ARCHS": ",".join(arch.removesuffix("+PTX") for arch in listed if arch),
        "CUDA_PTX": ",".join(with_ptx),
        "CUDA_TOOLKIT": toolkit.version if toolkit else "",
        "TORCH_VERSION": torch.__version__,
    }
    return [
        f"-DFASTINTERP_WITH_CUDA={int(toolkit is not None)}",
        *(f'-DFASTINTERP_{name}="{text}"' for name, text in texts.items()),
    ]


def extension():
    torch = import_torch()
    toolkit = choose_toolkit(torch)
    archs = ""
    if toolkit is not None:
        # torch reads CUDA_HOME when cpp_extension is imported; without it, it guesses wrongly where
        # the nvcc on PATH is a wrapper.
        os.environ["CUDA_HOME"] = str(toolkit.home)
        archs = choose_archs(torch)
    from torch.utils import cpp_extension

    class Build(cpp_extension.BuildExtension):
        """Keeps object files in build/kernels, so that ninja compiles only what has changed."""

        def finalize_options(self):
            super().finalize_options()
            self.build_temp = str(ROOT / "build" / ("sanitized" if sanitized else "kernels"))

    debug, sanitized = (os.environ.get(name) == "1" for name in ("DEBUG", "FASTINTERP_SANITIZE"))
    # -g0: Python's own flags ask for debugging data, which takes a third of the build's time.
    speed = ["-O0", "-g"] if debug else ["-O3", "-DNDEBUG", "-g0"]
    watched = []
    if sanitized:
        speed = ["-O1", "-g1", "-fno-omit-frame-pointer"]
        watched = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    folders = ("csrc", "csrc/autograd", "csrc/cpu", "csrc/cpu/vector")
    sources = [source for folder in folders for source in glob(f"{folder}/*.cpp")]
    flags = {
        # -Wno-psabi: wide vectors never cross a translation unit.
        "cxx": [
            *speed,
            *watched,
            "-std=c++20",
            "-fopenmp",
            "-Wno-psabi",
            "-fvisibility=hidden",
            *defines(torch, toolkit, archs),
        ],
    }
    build = cpp_extension.CppExtension
    if toolkit is not None:
        build = cpp_extension.CUDAExtension
        sources += glob("csrc/cuda/*.cu")
        flags["nvcc"] = ["-O0", "-G"] if debug else ["-O3", "-DNDEBUG"]
        flags["nvcc"] += ["-std=c++20", "-lineinfo", "--expt-relaxed-constexpr"]
    headers = [header for suffix in ("h", "cuh", "inc") for header in glob(f"csrc/**/*.{suffix}")]
    return build(
        "fastinterp._C",
        sources,
        depends=headers,
        extra_compile_args=flags,
        extra_link_args=["-fopenmp", *watched],
    ), Build


def glob(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))


NO_BUILD = ("egg_info", "sdist", "dist_info", "clean", "--version")  # these compile nothing

if __name__ == "__main__":
    if any(command in sys.argv for command in NO_BUILD):
        setup()
    else:
        module, builder = extension()
        setup(ext_modules=[module], cmdclass={"build_ext": builder})
