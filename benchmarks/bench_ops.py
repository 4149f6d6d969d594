"""Each op: fused, in plain torch, and in plain torch compiled. `make bench` runs this."""

from benchmarks.op_groups import all_groups
from benchmarks.rows import rows

GROUPS = all_groups("cpu")


@rows(GROUPS)
def bench(timed, group, entry):  # type: ignore[no-untyped-def]
    timed(group, entry)
