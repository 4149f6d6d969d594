"""Ctrl-C between two steps, not within one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from .._utils import processes


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C was pressed.

    A step that is interrupted leaves weights of no step, so the loop asks between steps and then
    saves. A second Ctrl-C stops at once. Of several processes only the first listens, since the
    others follow it; it ignores what torchrun sends within a second of the terminal's Ctrl-C. There
    SIGTERM is the same, which torchrun sends when a process died and Slurm before a time limit.
    Outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked, since = False, 0.0

    def remember(signum: int, frame: FrameType | None) -> None:
        nonlocal asked, since
        if asked and (processes.world() == 1 or time.monotonic() - since > 1.0):
            raise KeyboardInterrupt
        asked, since = asked or processes.rank() == 0, time.monotonic()

    signals = [signal.SIGINT] + [signal.SIGTERM] * processes.launched()
    previous = [signal.signal(one, remember) for one in signals]
    try:
        yield lambda: asked
    finally:
        for one, handler in zip(signals, previous, strict=True):
            signal.signal(one, handler)
