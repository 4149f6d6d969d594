"""Commands with a time limit, and what they leave behind: used by gpu_check.py."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TAIL = 3000  # characters of a log that the results file keeps
GRACE = 5.0  # seconds that a stopped command has to say where it was

Found = dict[str, Any]  # of a step: passed, seconds, tail


def run(
    command: list[str], seconds: float, log: Path, variables: Mapping[str, str] | None = None
) -> Found:
    """Run a command with its output in `log`; stop it and all that it started when time is up.

    Args:
        variables: of the environment, beside those that are set.
    """
    begin = time.perf_counter()
    print(f"$ {' '.join(command)[:200]}", flush=True)
    environment = os.environ | {"PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"}
    environment |= variables or {}
    with log.open("w", encoding="utf-8") as handle:
        try:
            code, note = _wait(command, seconds, handle, environment)
        except OSError as error:
            code, note = -1, f"it could not be started: {error}"
        if note:
            handle.write(f"\ngpu_check: {note}\n")
    found = {"passed": code == 0, "seconds": time.perf_counter() - begin, "tail": tail(log)}
    print(found["tail"][-800:], flush=True)
    return found


def _wait(
    command: list[str], seconds: float, handle: Any, environment: Mapping[str, str]
) -> tuple[int | None, str]:
    """Exit status and a remark; None where the command had to be stopped."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=handle,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        # Ctrl-C lets tests sum up and training save; faulthandler shows where a process hangs.
        for number in (signal.SIGINT, signal.SIGABRT):
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
                break
        return None, f"stopped after {seconds:.0f} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    if code < 0:
        return code, f"it was ended by {signal.Signals(-code).name}"
    return code, f"it ended with status {code}" if code else ""


def tail(log: Path) -> str:
    """The end of a log, without the progress bars that were drawn over."""
    text = log.read_bytes().decode("utf-8", errors="replace")
    return re.sub(r"[^\n]*\r(?!\n)", "", text)[-TAIL:]


def write_archive(archive: Path, results: Path, *folders: Path) -> None:
    """One file of everything there is to keep; written anew after each step."""
    temporary = archive.with_name(f".{archive.name}")
    with tarfile.open(temporary, "w:gz") as handle:
        if results.exists():
            handle.add(results, results.name)
        for folder in folders:
            if folder.exists():
                handle.add(folder, folder.name)
    temporary.replace(archive)
