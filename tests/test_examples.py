"""Every script of examples/ runs, is short, and prints what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
# Script -> its arguments here, and a word of what it prints.
EXPECTED = {
    "attack": ([], "median radius"),
    "evaluate": ([], "Kendall's tau"),
    "explain": ([], "margin / 2"),
    "own_loop": (["1"], "under attack"),
    "own_objective": ([], "mean distance"),
    "timm_network": ([], "as large as the images"),
    "torchrun_train": (["1"], "epoch 1"),
    "train_int": (["1"], "ready to use"),
}


def test_every_script_is_listed_and_short() -> None:
    assert {path.stem for path in SCRIPTS} == set(EXPECTED)
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 60 for path in SCRIPTS)


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    words, printed = EXPECTED[path.stem]
    launcher = [sys.executable]
    if path.stem.startswith("torchrun"):
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, str(path), *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert printed in done.stdout
