"""What is taken along to a GPU machine, and what is made of it there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import gpu_pack, gpu_steps, record
from benchmarks.gpu_results import Place


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that was copied without its git repository."""
    root = tmp_path / "checkout"
    (root / "csrc").mkdir(parents=True)
    (root / "fastinterp").mkdir()
    (root / "csrc" / "a.h").write_text("int a;")
    (root / "fastinterp" / "b.py").write_text("b = 1")
    monkeypatch.setattr(record, "ROOT", root)
    monkeypatch.setattr(gpu_pack, "ROOT", root)
    monkeypatch.setattr(gpu_pack, "HERE", root / "fastinterp" / gpu_pack.HERE.name)
    monkeypatch.delenv(record.PACK, raising=False)
    return root


def pack(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_pack.py", *arguments])
    gpu_pack.main()


def git(folder: Path, *command: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, *command], cwd=folder, check=True, capture_output=True)


def test_the_commit_travels_where_git_does_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert record.commit() == {"commit": None, "modified": None}
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "a")
    here = record.commit()
    assert len(here["commit"]) == 40 and here["modified"] is False
    pack(monkeypatch, "--out", str(tmp_path / "pack"))
    (folder / ".git").rename(tmp_path / "git")
    monkeypatch.setenv(record.PACK, str(tmp_path / "pack"))
    assert record.commit() == here
    (folder / "fastinterp" / "b.py").write_text("b = 2")
    assert record.commit() == here | {"modified": True}
    (tmp_path / "git").rename(folder / ".git")
    assert record.commit() == here | {"modified": True}
    (folder / ".git").joinpath("HEAD").unlink()  # a repository that git does not take for one
    assert record.commit()["commit"] == here["commit"]


def test_results_that_are_rewritten_modify_nothing(folder: Path) -> None:
    results = folder / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "gpu.json").write_text("1")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "a")
    (results / "gpu.json").write_text("2")
    assert record.commit()["modified"] is False


def test_data_and_networks_are_taken_along(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("a.gz", "b.gz", "c.gz", "d.gz", "a"):
        (raw / name).write_text(name)
    for name in (*gpu_pack.RELEASED, "other.pkl"):
        (tmp_path / name).write_text(name)
    out = tmp_path / "pack"
    named = ("--data-dir", str(tmp_path / "data"), "--networks", str(tmp_path))
    pack(monkeypatch, "--out", str(out), *named)
    assert len(list((out / "data" / "MNIST" / "raw").iterdir())) == 4
    assert {path.name for path in (out / "networks").iterdir()} == set(gpu_pack.RELEASED)
    with pytest.raises(SystemExit, match="needs 4 files"):
        pack(monkeypatch, "--out", str(out), "--data-dir", str(out))
    place = Place("gpu", tmp_path, out, "a" * 64, 2, 0.0)
    variables = place.variables()
    assert variables["FASTINTERP_BENCH_NETWORKS"] == str(out / "networks")
    assert variables[record.PACK] == str(out)
    assert str(out / "packages") in variables["PYTHONPATH"]


@pytest.fixture
def carried(folder: Path, tmp_path: Path) -> Path:
    """A pack with kernels for this Python and torch."""
    extension = tmp_path / "pack" / gpu_pack.EXTENSION
    extension.mkdir(parents=True)
    (extension / gpu_pack.HERE.name).write_text("kernels")
    about = {"torch": torch.__version__, "suffix": gpu_pack.SUFFIX}
    about["kernels"] = record.digest(record.KERNELS)
    (extension / gpu_pack.ABOUT).write_text(json.dumps(about))
    return tmp_path / "pack"


def test_carried_kernels_are_put_where_they_are_imported_from(carried: Path) -> None:
    assert gpu_pack.place_extension(carried) is None
    assert gpu_pack.HERE.read_text() == "kernels"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("torch", "1.0", r"for 1\.0, and this is"),
        ("suffix", ".other.so", "no kernels"),
        ("kernels", "b" * 64, "from other sources"),
    ],
)
def test_carried_kernels_that_do_not_fit_are_left(
    carried: Path, name: str, value: str, why: str
) -> None:
    path = carried / gpu_pack.EXTENSION / gpu_pack.ABOUT
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(gpu_pack.place_extension(carried))
    assert not gpu_pack.HERE.exists()


@pytest.mark.parametrize("serve", [True, False])
def test_kernels_are_built_where_the_carried_do_not_serve(
    carried: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: bool
) -> None:
    ran = []

    def run(command: list[str], seconds: float, log: Path, variables: Any) -> dict[str, Any]:
        ran.append(log.stem)
        if log.stem == "build":
            assert not gpu_pack.HERE.exists()
        return {"passed": serve or len(ran) > 1, "seconds": 1.0, "tail": ""}

    monkeypatch.setattr(gpu_steps, "run", run)
    place = Place("gpu", tmp_path, carried, "a" * 64, 2, 0.0)
    found = gpu_steps.build(place, 100)
    assert found["passed"] and found["carried"] is serve
    assert ran == (["proof"] if serve else ["proof", "build", "proof"])
    assert gpu_pack.HERE.exists() is serve


def test_kernels_are_compiled_once_for_the_same_sources(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    answer = json.dumps({"torch": torch.__version__, "suffix": gpu_pack.SUFFIX})

    def run(command: list[str], **options: Any) -> Any:
        if "build_ext" not in command:
            return SimpleNamespace(stdout=answer, returncode=1)
        assert options["env"]["FASTINTERP_CUDA"] == "1"
        lib = Path(command[command.index("--build-lib") + 1]) / "fastinterp"
        lib.mkdir(parents=True, exist_ok=True)
        (lib / gpu_pack.HERE.name).write_text("compiled")
        compiled.append(command)
        return None

    monkeypatch.setattr(gpu_pack.subprocess, "run", run)
    arguments = ("--out", str(tmp_path / "pack"), "--python", sys.executable)
    for _ in range(2):
        pack(monkeypatch, *arguments)
    assert len(compiled) == 1
    assert gpu_pack.place_extension(tmp_path / "pack") is None
    (folder / "csrc" / "a.h").write_text("int c;")
    pack(monkeypatch, *arguments)
    assert len(compiled) == 2
