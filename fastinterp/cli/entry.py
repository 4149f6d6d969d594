"""The command `fastinterp`: runs a command, and turns errors into one sentence and an exit code."""

from __future__ import annotations

import os
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from .._utils import processes
from .._utils.errors import InputError, ProcessLost, WriteError
from .parser import PROGRAM, build_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: that of the command, 2 for bad input, 130 for Ctrl-C,
    141 if the reader of the output has closed it, 1 if a run cannot be written or for an error that
    nobody foresaw."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        parser = build_parser()
        args = parser.parse_args(words)
        if args.run is None:
            parser.print_help()
        if processes.launched() and not _takes_part(args.command):
            return 0
        code: int = 0 if args.run is None else args.run(args)
        sys.stdout.flush()
        return code
    except InputError as error:
        return _fail(str(error))
    except ProcessLost as error:
        return _fail(str(error), 1)
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
        if processes.rank() > 0:
            return 130
        print(f"\n{PROGRAM}: stopped; {_how_to_continue(words)}", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("FASTINTERP_DEBUG") == "1":
            traceback.print_exc()
        _fail(
            f"{type(error).__name__}: {error}. This is a fault of fastinterp: please report it "
            "with the command and with what FASTINTERP_DEBUG=1 makes it print."
        )
        return 1


SHARED = ("train", "eval", "audit", "reproduce")  # the commands that several processes share


def _takes_part(command: str | None) -> bool:
    """Join the processes of torchrun, of which only the first prints; whether this one has work."""
    first = os.environ["RANK"] == "0"
    if command not in SHARED:
        return first
    processes.join()
    if not first:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        warnings.simplefilter("ignore")
    return True


def _fail(message: str, code: int = 2) -> int:
    """Print an error as one line of bounded length. Returns the exit code.

    Of several processes with the same error one prints it.
    """
    if not processes.first_to_say(message):
        return code
    line = re.sub(r"\S{121,}", lambda word: _shorten(word[0], 120), " ".join(message.split()))
    print(f"{PROGRAM}: error: {_shorten(line, 800)}", file=sys.stderr)
    return code


def _shorten(text: str, most: int) -> str:
    """The text, with dots in its middle if it is longer."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"


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
