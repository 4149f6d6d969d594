"""Everything that can be reproduced, by name: the paper's tables and figures."""

from __future__ import annotations

from difflib import get_close_matches

from .._utils.errors import InputError
from .figures import FIGURES, Figure
from .paper import Table, list_tables, load_table

Entry = Table | Figure


def list_entries() -> list[str]:
    """The names of the tables and figures that can be reproduced."""
    return [*list_tables(), *FIGURES]


def load_entry(name: str) -> Entry:
    """A table or figure by its name.

    Raises:
        InputError: there is no such thing here.
    """
    if name in FIGURES:
        return FIGURES[name]
    if name in list_tables():
        return load_table(name)
    known = list_entries()
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
    raise InputError(f"There is no {name!r} to reproduce; {hint}")


def duration(minutes: float) -> str:
    """About how long, as people say it: "about 4 min", "about 3 h"."""
    if minutes < 90:
        return f"about {max(1, round(minutes))} min"
    hours = minutes / 60
    return f"about {round(hours)} h" if hours < 72 else f"about {round(hours / 24)} days"
