"""Random numbers without a state: each is a function of the run's seed and of what it is for."""

from __future__ import annotations

from hashlib import blake2b


def derive(seed: int, purpose: str, index: int) -> int:
    """A seed in 0..2^63-1 for, say, ("order", epoch) or ("start", step).

    A run that was stopped and resumed draws what it would have drawn, with nothing to remember.
    """
    digest = blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
