"""A wrong keyword is refused with a hint at the right one."""

from __future__ import annotations

import inspect

import pytest

from fastinterp import InputError
from fastinterp._utils.keywords import hint_keywords, reject_unknown

KNOWN = ("model", "eps", "step_size", "steps", "lr_milestones", "random_start", "lower")


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("alpha", "did you mean 'step_size'?"),
        ("num_steps", "did you mean 'steps'?"),
        ("nb_iter", "did you mean 'steps'?"),
        ("iters", "did you mean 'steps'?"),
        ("epsilon", "did you mean 'eps'?"),
        ("lr_schedule", "did you mean 'lr_milestones'?"),
        ("clip_min", "did you mean 'lower'?"),
        ("random_strat", "did you mean 'random_start'?"),
        ("epochs", "pass it to fit(epochs=...)."),
        ("learning_rate", f"known names are {', '.join(KNOWN)}."),
    ],
)
def test_a_hint_for_each_wrong_name(given: str, hint: str) -> None:
    with pytest.raises(InputError) as error:
        reject_unknown("IntTrainer", {"eps": 1, given: 2}, KNOWN)
    assert str(error.value) == f"IntTrainer has no setting {given!r}; {hint}"


def test_known_names_pass() -> None:
    reject_unknown("PGD", KNOWN, KNOWN)


@hint_keywords
class Attack:
    def __init__(self, model: object, eps: float = 0.3, *, steps: int = 1) -> None:
        self.settings = (model, eps, steps)


class Stronger(Attack):
    pass


def test_a_decorated_class_checks_its_keywords_and_keeps_its_signature() -> None:
    assert Attack("m", 0.1, steps=2).settings == ("m", 0.1, 2)
    assert list(inspect.signature(Attack).parameters) == ["model", "eps", "steps"]
    with pytest.raises(InputError, match=r"^Stronger has no setting 'iters'; .* 'steps'\?$"):
        Stronger("m", iters=3)
    with pytest.raises(TypeError, match="model"):
        Attack(steps=3)  # type: ignore[call-arg]
