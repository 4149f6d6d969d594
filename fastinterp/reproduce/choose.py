"""What the words of `--only` keep."""

from __future__ import annotations

from collections.abc import Sequence


def kept(names: Sequence[tuple[str, ...]], only: Sequence[str]) -> list[bool]:
    """Whether each thing is kept: of each kind of word in `only`, it must fit one.

    Args:
        names: things by their words, one of each kind, such as ("mnist", "small", "int").
        only: words; none keeps everything, and one that nothing is called keeps nothing.
    """
    kinds = [set(kind) for kind in zip(*names, strict=True)]
    if not set(only) <= set().union(*kinds):
        return [False] * len(names)
    wishes = [kind & set(only) or kind for kind in kinds]
    return [all(word in wish for word, wish in zip(name, wishes, strict=True)) for name in names]
