"""Command lines: an exit code of 0, 1 or 2, and at most one line of error."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from functools import cache
from pathlib import Path
from random import Random

from fastinterp import models
from fastinterp.cli import main

COMMANDS = ("train", "eval", "explain", "audit", "reproduce", "doctor", "demo", "")
OPTIONS = (
    "--dataset", "--data-dir", "--out", "--n", "--eps", "--steps", "--step-size", "--norm",
    "--protocol", "--seed", "--attack", "--interpreter", "--classes", "--kind", "--k", "--hinge",
    "--batch-size", "--device", "--indices", "--target", "--transfer-from", "--networks", "--only",
    "--set", "--resume", "--list", "--train", "--interpreters", "--model", "--method",
)  # fmt: skip
VALUES = (
    "digits", "mnist", "cifar10", "imagefolder", "0.1", "8/255", "-1", "nan", "inf", "1e400", "1/0",
    "1e999999999", "0", "1", "3", "99999999999999999999", "linf", "l2", "paper", "best", "pgd",
    "aai", "isa", "fog", "cam", "ig", "repr", "2-class", "topk", "cpu", "cuda:99", "meta", "xla",
    "NETWORK", "FOLDER", "JSON", "OUT", "~nobody/x", "x" * 5000, "", " ", "\u2603", "/dev/null",
    "/proc/self/mem", "mnist-small-int", "digits-small-int", "table3", "fig3", "epochs=0",
    "lr=1e300", "num_classes=1e30", "eps=1e999999999", "seed=99999999999999999999999", "epochs=1",
    "../..",
)  # fmt: skip


@cache
def folder() -> Path:
    """A network, a folder and a JSON file that command lines may name."""
    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    models.save(models.small(seed=0), place / "network.safetensors")
    (place / "deep.json").write_text("[" * 100_000)
    (place / "other.json").write_text(json.dumps({"table": "table3", "rows": [3]}))
    return place


def word(random: Random) -> str:
    value = random.choice(VALUES)
    names = {
        "NETWORK": folder() / "network.safetensors",
        "FOLDER": folder(),
        "JSON": folder() / random.choice(("deep.json", "other.json")),
        "OUT": folder() / random.choice(("a.json", "a.png", "a", "a/b/c.json")),
    }
    return str(names.get(value, value))


def draw(random: Random) -> list[str]:
    command = random.choice(COMMANDS)
    if random.random() < 0.5 and command in ("eval", "explain", "audit"):  # nearly right
        words = [command, str(folder() / "network.safetensors"), "--dataset", "digits", "--n", "1"]
        words += ["--out", str(folder() / ("a.png" if command == "explain" else "a.json"))]
    else:
        words = [command] if command else []
        words += [word(random) for _ in range(random.randrange(3))]
    for _ in range(random.randrange(4)):
        words.append(random.choice(OPTIONS))
        words += [word(random) for _ in range(random.choice((0, 1, 1, 1, 2)))]
    return words


def case(random: Random) -> None:
    words = draw(random)
    if words[:1] in (["demo"], ["doctor"]) and len(words) < 2:
        return  # they would run, for minutes
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as here:
        os.chdir(here)  # a case has a process of its own
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(words)
        except SystemExit as end:
            code = 0 if end.code is None else int(end.code)
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__}: {error} in {words!r:.400}") from error
        finally:
            os.chdir("/")
    assert code in (0, 1, 2), f"exit code {code} of {words!r:.300}"
    if code == 2:
        lines = [
            line for line in err.getvalue().splitlines() if line.startswith("fastinterp: error")
        ]
        assert len(lines) == 1 and len(lines[0]) < 2000, (
            f"{err.getvalue()[-300:]!r} of {words!r:.200}"
        )
