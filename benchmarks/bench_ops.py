"""Each op: fused, in plain torch, and in plain torch compiled. `make bench` runs this."""

from benchmarks import conv_groups, op_groups
from benchmarks.rows import rows

GROUPS = [*op_groups.all_groups("cpu"), *conv_groups.all_groups("cpu")]


@rows(GROUPS)
def bench(timed, group, entry):  # type: ignore[no-untyped-def]
    timed(group, entry)
