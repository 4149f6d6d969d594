"""Whether this thread's passes take weights as constants, as the steps of an attack do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Local(threading.local):
    constant = False


_local = _Local()


@contextmanager
def constant_weights() -> Iterator[None]:
    """Let ops with backward passes in Python leave the gradient of their weights out for a while.

    Torch's own layers leave out what nobody asks for; `ctx.needs_input_grad` in Python does not.
    The weights stay as they are: threads may share them.
    """
    before, _local.constant = _local.constant, True
    try:
        yield
    finally:
        _local.constant = before


def are_weights_constant() -> bool:
    return _local.constant
