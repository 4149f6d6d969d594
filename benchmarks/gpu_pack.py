"""Make the folder `gpu-pack`: what gpu_check.py needs on a GPU machine without a network.

    python benchmarks/gpu_pack.py [--data-dir FOLDER] [--networks FOLDER] [--python PYTHON]
                                  [--packages [NAME ...]]

Copy the checkout with that folder to the machine. The folder names the commit, for a checkout that
is copied without its `.git`, and holds what the options ask for:

- MNIST's four .gz files from `--data-dir`, and the released MNIST Small networks `normal` and `int`
  from `--networks`;
- the kernels, compiled by `--python`, a Python of the machine's version that has the machine's
  version of torch, and setuptools, ninja and pybind11;
- packages that the machine lacks, installed by that Python; without names, those that the
  benchmarks compare with.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import record
from benchmarks.record import ROOT

PACK = ROOT / "gpu-pack"
DATA, NETWORKS, EXTENSION, PACKAGES = "data", "networks", "extension", "packages"
RELEASED = ("mnist_smallgap_normal_100.pkl", "mnist_smallgap_int_100.pkl")
PEERS = (
    *("captum", "torchattacks", "foolbox", "adversarial-robustness-toolbox", "eagerpy", "six"),
    *("GitPython", "gitdb", "smmap", "requests", "urllib3", "idna", "certifi"),
    "charset-normalizer",
)
ABOUT = "about.json"  # of the extension: {kernels, torch, suffix}
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
HERE = ROOT / "fastinterp" / f"_C{SUFFIX}"


def place_extension(pack: Path) -> str | None:
    """Copy the kernels of the pack to where they are imported from, or say why they do not fit."""
    import torch

    about = _about(pack / EXTENSION)
    if about is None:
        return f"there are no kernels in {pack.name}"
    for name, here in (("torch", torch.__version__), ("suffix", SUFFIX)):
        if about[name] != here:
            return f"the kernels of the pack are for {about[name]}, and this is {here}"
    if about["kernels"] != record.digest(record.KERNELS):
        return "the kernels of the pack were built from other sources"
    shutil.copyfile(pack / EXTENSION / HERE.name, HERE)
    return None


def remove_extension() -> None:
    HERE.unlink(missing_ok=True)


def _about(folder: Path) -> dict[str, str] | None:
    path = folder / ABOUT
    if not path.exists():
        return None
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found if (folder / f"_C{found['suffix']}").exists() else None


def main() -> None:
    options = _options()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    packed = record.commit() | {"code": record.digest(record.CODE)}
    (out / record.ORIGIN).write_text(json.dumps(packed) + "\n", encoding="utf-8")
    if options.data_dir is not None:
        raw = Path("MNIST", "raw")
        _copy(sorted((options.data_dir / raw).glob("*.gz")), 4, out / DATA / raw)
    if options.networks is not None:
        found = [p for p in (options.networks / name for name in RELEASED) if p.exists()]
        _copy(found, len(RELEASED), out / NETWORKS)
    if options.packages is not None:
        command = [options.python or sys.executable, "-m", "pip", "install", "--quiet", "--upgrade"]
        command += ["--no-deps", "--no-compile", "--target", str(out / PACKAGES)]
        subprocess.run([*command, *(options.packages or PEERS)], check=True)
    if options.python is not None:
        _compile(options.python, out / EXTENSION)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 2**20:.1f} MiB")


def _copy(files: list[Path], count: int, folder: Path) -> None:
    if len(files) != count:
        sys.exit(f"{folder.name} needs {count} files, but only {len(files)} were found.")
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        shutil.copyfile(path, folder / path.name)


def _compile(python: str, folder: Path) -> None:
    """Compile with another Python, unless the pack holds kernels of the same sources."""
    question = "import json, sysconfig, torch; print(json.dumps({'torch': torch.__version__, "
    question += "'suffix': sysconfig.get_config_var('EXT_SUFFIX')}))"
    answer = subprocess.run([python, "-c", question], check=True, capture_output=True, text=True)
    about = json.loads(answer.stdout) | {"kernels": record.digest(record.KERNELS)}
    if _about(folder) == about:
        return
    work = ROOT / "build" / "gpu-pack" / f"torch-{about['torch']}{about['suffix']}"
    command = [python, "setup.py", "build_ext"]
    command += ["--build-lib", str(work / "lib"), "--build-temp", str(work / "temp")]
    tools = os.pathsep.join((str(Path(python).absolute().parent), os.environ.get("PATH", "")))
    subprocess.run(
        command, cwd=ROOT, check=True, env=os.environ | {"FASTINTERP_CUDA": "1", "PATH": tools}
    )
    folder.mkdir(parents=True, exist_ok=True)
    name = f"_C{about['suffix']}"
    shutil.copyfile(work / "lib" / "fastinterp" / name, folder / name)
    (folder / ABOUT).write_text(json.dumps(about) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=PACK, help="the folder; default: gpu-pack")
    parser.add_argument("--data-dir", type=Path, help="folder that holds MNIST/raw/*.gz")
    parser.add_argument("--networks", type=Path, help="folder with the released .pkl files")
    parser.add_argument("--python", help="compile the kernels with this Python and its torch")
    parser.add_argument(
        "--packages", nargs="*", metavar="NAME", help="install packages into the pack"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
