"""The command `fastinterp`: runs a command, and turns errors into one sentence and an exit code."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

import torch

from .._utils.errors import InputError, WriteError
from .parser import PROGRAM, build_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: that of the command, 1 if a run cannot be written, 2
    for bad input, 130 for Ctrl-C, 141 if the reader of the output has closed it."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        parser = build_parser()
        args = parser.parse_args(words)
        if args.run is None:
            parser.print_help()
        code: int = 0 if args.run is None else args.run(args)
        sys.stdout.flush()
        return code
    except InputError as error:
        return _fail(str(error))
    except torch.OutOfMemoryError:
        return _fail("the GPU ran out of memory; lower --batch-size or use --device cpu.")
    except BrokenPipeError:  # such as by `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # as a SIGPIPE gives
    except WriteError as error:
        return _fail(str(error), 1)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}.")
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: stopped; {_how_to_continue(words)}", file=sys.stderr)
        return 130


def _fail(message: str, code: int = 2) -> int:
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _how_to_continue(words: list[str]) -> str:
    same = shlex.join([PROGRAM, *words])
    command = words[0] if words else ""
    if command == "train" and "--resume" not in words:
        same += " --resume"
    if command in ("train", "demo"):
        return f"`{same}` goes on from the last checkpoint."
    resumes = any(word.startswith(("--out", "--train", "fig")) for word in words)
    if command == "reproduce" and resumes:
        return f"`{same}` goes on from what was written."
    return f"nothing was written; `{same}` begins anew."
