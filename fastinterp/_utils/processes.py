"""The processes that torchrun started together: which one this is, and what they tell each other.

A process that was started alone is the first of one, and exchanges nothing. Everything that
exchanges must be called by all processes, in the same order.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from .errors import InputError, ProcessLost, WriteError

T = TypeVar("T")
_ROUND = f"fastinterp/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/"


def launched() -> bool:
    """Whether torchrun, or a launcher that sets the same variables, started several processes."""
    count = os.environ.get("WORLD_SIZE", "")
    return count.isdecimal() and int(count) > 1 and "RANK" in os.environ


def restarted() -> bool:
    """Whether torchrun started this process again after one had died (--max-restarts)."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") not in ("", "0")


def join() -> None:
    """Join the other processes of torchrun; nothing if there are none, or it is done already.

    Each process gets the GPU of its LOCAL_RANK, if there is one, as torch's current device.
    """
    if not launched() or not dist.is_available() or dist.is_initialized():
        return
    local, backend = int(os.environ.get("LOCAL_RANK", "0")), "gloo"
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    # Imported after the group is made, as by an optimizer, its functions would hold the group as a
    # default argument, and the group's threads would outlive Python, which may then abort.
    import_module("torch.distributed.nn.functional")
    store, number, count = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    # A name of its own, because after a restart torchrun's store still holds the old addresses.
    named = dist.distributed_c10d.PrefixStore(_ROUND, store)
    dist.init_process_group(backend, store=named, rank=number, world_size=count)
    atexit.register(leave)


def leave() -> None:
    """Leave the other processes."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if joined() else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if joined() else 1


@contextmanager
def reaching_all() -> Iterator[None]:
    """Around every exchange: say in one sentence that another process is gone.

    Raises:
        ProcessLost: it is.
    """
    try:
        yield
    except RuntimeError as error:  # torch's errors of connections are of this kind
        raise ProcessLost(
            f"Process {rank()} of {world()} stopped because another process of this run ended or "
            f"no longer answers{_reason()}; what was saved before is still there, so start the "
            "same command again with resume (--resume)."
        ) from error


def gather(value: T) -> list[T]:
    """The value of every process, in order; values are pickled."""
    if world() == 1:
        return [value]
    found: list[Any] = [None] * world()
    with reaching_all():
        dist.all_gather_object(found, value)
    return found


def in_turns(mine: list[T]) -> list[T]:
    """What all processes found, where process r found items r, r + N, r + 2N, ... of the whole."""
    every = gather(mine)
    return [every[i % world()][i // world()] for i in range(sum(map(len, every)))]


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, in all of them. An error that it raises is raised in all."""
    if world() == 1:
        return make()
    outcome: list[Any] = [None, None]
    failed: Exception | None = None
    if rank() == 0:
        try:
            outcome[0] = make()
        except Exception as error:
            failed = error
            known = isinstance(error, InputError | WriteError)
            outcome[1] = error if known else RuntimeError(f"{type(error).__name__}: {error}")
    with reaching_all():
        dist.broadcast_object_list(outcome, src=0)
    if failed is not None:
        raise failed
    if outcome[1] is not None:
        raise outcome[1]
    made: T = outcome[0]
    return made


def only_first(do: Callable[[], T]) -> T | None:
    """Let the first process do something, and the others wait for it; they get None."""
    found: list[T] = []

    def once() -> None:
        found.append(do())

    from_first(once)
    return found[0] if found else None


def add_up(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of all processes' tensors, in place."""
    if world() > 1:
        with reaching_all():
            dist.all_reduce(tensor)
    return tensor


def tell_why(reason: str) -> None:
    """Leave word for the other processes, which will notice that this one has ended."""
    with suppress(Exception):
        _store().set(f"{_ROUND}reason", reason)


def first_to_say(message: str) -> bool:
    """Whether no other process has said the same, so that a user reads it once."""
    with suppress(Exception):
        return bool(_store().add(f"{_ROUND}{message}", 1) == 1)
    return True


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _reason() -> str:
    with suppress(Exception):
        if _store().check([f"{_ROUND}reason"]):
            said = _store().get(f"{_ROUND}reason").decode().rstrip(".")
            return f" ({said})"
    return ""
