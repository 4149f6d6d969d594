"""What every part of the campaign shares: seeded cases, a child process for each, findings."""

from __future__ import annotations

import os
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fastinterp import InputError

SECONDS = 10  # of a processor that a case may take
WAIT = 120  # seconds that it may take on a busy machine, or wait for what never comes
MEMORY = 3 << 30  # bytes that a case may allocate beyond what the process holds

Case = Callable[[Random], None]


@dataclass(frozen=True)
class Finding:
    """A case that failed.

    Attributes:
        part: its part of the campaign.
        seed: what `Random` was made of; with the part it gives the case again.
        what: the error.
    """

    part: str
    seed: int
    what: str

    def __str__(self) -> str:
        return f"{self.part} {self.seed}: {self.what}"


def one_sentence(error: BaseException) -> None:
    """Raise unless an error is what bad input should meet."""
    text = str(error)
    assert isinstance(error, InputError), f"{type(error).__name__}: {text[:300]}"
    assert text.strip() and "\n" not in text, f"not one line: {text[:300]!r}"


@contextmanager
def refusals_allowed() -> Iterator[None]:
    """Let an InputError of one sentence pass; anything else that is raised is a finding."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        one_sentence(error)


def run(part: str, case: Case, seeds: range) -> list[Finding]:
    """Run a case for each seed, one after the other in this process."""
    found = []
    for seed in seeds:
        try:
            case(Random(seed))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            what = f"{type(error).__name__}: {error} ({place})"
            found.append(Finding(part, seed, what[:500]))
    return found


def run_in_children(part: str, case: Case, seeds: range) -> list[Finding]:
    """Run each case in a child process with bounded time and memory: input may try to use them up.

    A child that is killed, by the bound on its time or by a crash, is a finding.
    """
    found = []
    for seed in seeds:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _bound()
            (finding,) = run(part, case, range(seed, seed + 1)) or (None,)
            if finding is not None:
                os.write(writer, finding.what.encode()[:2000])
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            what = pipe.read().decode(errors="replace")
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            over = {"SIGPROF": f", {SECONDS} s of work", "SIGALRM": f", after {WAIT} s"}
            what = f"killed by {name}{over.get(name, '')}"
        if what:
            found.append(Finding(part, seed, what))
    return found


def _bound() -> None:
    for end in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(end, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(WAIT)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    held = pages * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    # What a case prints, or a library warns of, is not looked at.
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)


def damage(data: bytes, random: Random) -> bytes:
    """Flip, cut out, repeat, insert or overwrite a few bytes."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        if not changed:
            break
        at = random.randrange(len(changed))
        how = random.randrange(6)
        if how == 0:
            changed[at] ^= 1 << random.randrange(8)
        elif how == 1:
            changed[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif how == 2:
            del changed[at : at + random.randrange(1, 64)]
        elif how == 3:
            changed[at:at] = changed[at : at + random.randrange(1, 64)]
        elif how == 4:
            changed[at:at] = random.randbytes(random.randrange(1, 16))
        else:
            del changed[at:]
    return bytes(changed)
