"""Files that never end are not opened; what killed processes leave is removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastinterp import InputError
from fastinterp._utils.files import atomic_path, read_file, remove_temporaries, usable_file


def test_only_regular_files_that_fit_into_memory_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 42)
    bad = (tmp_path / "fifo", "/dev/zero", tmp_path, tmp_path / "none", tmp_path / ("x" * 5000))
    for path in (*bad, tmp_path / "sparse"):
        with pytest.raises(InputError) as error:
            usable_file(path)
        assert "\n" not in str(error.value)
    (tmp_path / "file").write_bytes(b"abc")
    assert read_file(tmp_path / "file") == b"abc"


def test_temporary_files_of_dead_processes_are_removed(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from fastinterp._utils.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n"
        "    path.write_bytes(b'x')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    for name in ("state.safetensors", "history"):
        subprocess.run([sys.executable, "-c", code, tmp_path / name], check=False)
    others = [tmp_path / name for name in (".hidden", ".a.tmp", ".a.b.tmp.c", "1.tmp", "state")]
    for path in others:
        path.write_bytes(b"")
    assert len(list(tmp_path.iterdir())) == len(others) + 2
    with atomic_path(tmp_path / "mine.json") as mine:
        mine.write_bytes(b"")
        remove_temporaries(tmp_path)
        assert mine.exists()
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "mine.json"])
