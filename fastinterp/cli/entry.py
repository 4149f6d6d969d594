"""The command `fastinterp`: runs a command, and turns errors into one sentence and an exit code."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

import torch

from .._utils.errors import InputError
from .parser import PROGRAM, build_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0, 2 for input that cannot be used, 130 for Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = build_parser().parse_args(words)
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except InputError as error:
        return _fail(str(error))
    except torch.OutOfMemoryError:
        return _fail("the GPU's memory was not enough; lower --batch-size, or take --device cpu.")
    except BrokenPipeError:
        return _end_quietly()
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}.")
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: stopped; {_how_to_go_on(words)}", file=sys.stderr)
        return 130


def _fail(message: str) -> int:
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _end_quietly() -> int:
    """Whoever reads our output has closed it, as `head` does: the code of a SIGPIPE."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + 13


def _how_to_go_on(words: list[str]) -> str:
    same = shlex.join([PROGRAM, *words])
    if words[:1] == ["train"]:
        again = same if "--resume" in words else f"{same} --resume"
        return f"`{again}` goes on from the last checkpoint."
    if words[:1] == ["demo"]:
        return f"`{same}` goes on from the last checkpoint."
    if words[:1] == ["reproduce"] and any(
        word.startswith(("--out", "--train", "fig")) for word in words
    ):
        return f"`{same}` goes on from what was written."
    return f"nothing was written; `{same}` begins anew."
