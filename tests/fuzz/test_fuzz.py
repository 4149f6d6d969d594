"""A short version of the campaign; `make fuzz` runs the long one."""

from __future__ import annotations

import pytest
from parts import PARTS, Part

WAITING = {
    "op calls": "sparse tensors are not yet refused",
    "damaged states": "states have no checksum yet",
    "kills": "hidden files of killed runs are not yet removed",
}


def marked(part: Part) -> object:
    reason = WAITING.get(part.name)
    marks = [pytest.mark.xfail(strict=False, reason=reason)] if reason else []
    return pytest.param(part, id=part.name, marks=marks)


@pytest.mark.parametrize("part", [marked(part) for part in PARTS])
def test_nothing_is_found(part: Part) -> None:
    assert [str(finding) for finding in part.try_out(range(part.short))] == []
