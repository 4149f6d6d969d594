"""What is published can be installed: source archive -> wheel -> a new environment -> the demo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEMO = """
import fastinterp
from fastinterp.cli.demo import run_demo
assert fastinterp.backend("cpu") == "cpu" and fastinterp.build_info()["built"]
run_demo("demo", overrides={"epochs": 1, "steps": 1, "train_images": 100}, n=20, pictured=1)
print(fastinterp.__file__)
"""


def run(*command: object, cwd: Path, **variables: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.mark.slow
def test_from_the_source_archive_to_the_demo(tmp_path: Path) -> None:
    python = sys.executable
    checkout = tmp_path / "checkout"
    patterns = shutil.ignore_patterns(
        ".venv", ".git", "build", "dist", "runs", "*.so", "*.egg-info", "__pycache__"
    )
    shutil.copytree(ROOT, checkout, ignore=patterns, symlinks=True)
    run(python, "setup.py", "-q", "sdist", "--dist-dir", tmp_path, cwd=checkout)
    (archive,) = tmp_path.glob("fastinterp-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    # DEBUG=1: the compiler need not optimise what is only to be packed.
    pip = (python, "-m", "pip")
    run(*pip, "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", tmp_path, source,
        cwd=tmp_path, FASTINTERP_CUDA="0", DEBUG="1", MAX_JOBS="2")  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")

    run(python, "-m", "venv", "--without-pip", "new", cwd=tmp_path)
    fresh = tmp_path / "new" / "bin" / "python"
    packages = tmp_path / "new" / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    run(*pip, "--python", fresh, "install", "-q", "--no-deps", wheel, cwd=tmp_path)
    # torch and the others, as they are; not the checkout that is installed beside them.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    printed = run(fresh, "-c", DEMO, cwd=tmp_path, OMP_NUM_THREADS="1")
    assert str(packages) in printed
    assert (tmp_path / "demo" / "metrics.json").is_file()
