"""Attacks and evaluation against other libraries. `make bench` runs this."""

from benchmarks.attack_groups import all_groups
from benchmarks.rows import rows

GROUPS = all_groups("cpu")


@rows(GROUPS)
def bench(timed, group, entry):  # type: ignore[no-untyped-def]
    timed(group, entry)
