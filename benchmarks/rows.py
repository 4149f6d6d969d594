"""Groups as pytest parameters: one test for each entry."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from benchmarks.group import Group


def rows(groups: Iterable[Group]) -> pytest.MarkDecorator:
    parameters = [
        pytest.param(group, entry, id=f"{group.title}, {entry}")
        for group in groups
        for entry in group.entries
    ]
    return pytest.mark.parametrize(("group", "entry"), parameters)
