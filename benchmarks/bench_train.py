"""Training iterations against their floor and eager programs. `make bench` runs this."""

from benchmarks.rows import rows
from benchmarks.train_groups import all_groups

GROUPS = all_groups("cpu")


@rows(GROUPS)
def bench(timed, group, entry):  # type: ignore[no-untyped-def]
    timed(group, entry)
