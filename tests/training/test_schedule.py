from __future__ import annotations

import pytest

from fastinterp import InputError
from fastinterp.training import LinearEps
from fastinterp.training.schedule import decay
from fastinterp.training.seeds import derive


def test_eps_grows_between_two_steps() -> None:
    schedule = LinearEps(0.3, 2000, 10000)
    assert schedule(0) == schedule(2000) == 0
    assert schedule(6000) == pytest.approx(0.15)
    assert schedule(10000) == schedule(10**6) == 0.3
    assert 0 < schedule(2001) < schedule(2002)


def test_eps_may_jump() -> None:
    assert [LinearEps(0.3, 5, 5)(step) for step in (4, 5, 6)] == [0, 0, 0.3]


@pytest.mark.parametrize("bad", [(-1, 5), (6, 5)])
def test_steps_in_the_wrong_order_are_refused(bad: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="0 <= start <= end"):
        LinearEps(0.3, *bad)


def test_learning_rate_falls_after_each_milestone() -> None:
    factors = [decay(step, (40000, 60000)) for step in (0, 40000, 40001, 60000, 60001)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert decay(10**9, ()) == 1


def test_seeds_are_a_function_of_what_they_are_for() -> None:
    assert derive(0, "order", 3) == derive(0, "order", 3)
    many = {derive(s, p, i) for s in range(5) for p in ("order", "start") for i in range(100)}
    assert len(many) == 1000
    assert all(0 <= seed < 2**63 for seed in many)
