"""The checks that every folder shares: what passes, and the one sentence for what does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch

from fastinterp import InputError
from fastinterp._utils import require

X = torch.zeros(2, 1, 4, 4)

PASSES: list[tuple[Callable[..., Any], tuple[Any, ...], Any]] = [
    (require.require_one_of, ("norm", "l2", ("linf", "l2")), "l2"),
    (require.require_known_name, ("recipe", "small", ("small", "pool")), "small"),
    (require.require_whole, ("seed", -3), -3),
    (require.require_seed, ("seed", 2**64 - 1), 2**64 - 1),
    (require.require_count, ("steps", 0, 0), 0),
    (require.require_number, ("gamma", -1), -1.0),
    (require.require_nonnegative, ("eps", 0), 0.0),
    (require.require_positive, ("penalty", 2), 2.0),
    (require.require_numbers, ("eps", 0.5), [0.5]),
    (require.require_counts, ("steps", (1, 2)), [1, 2]),
]
FAILS: list[tuple[Callable[..., Any], tuple[Any, ...], str]] = [
    (
        require.require_one_of,
        ("norm", "l3", ("linf", "l2")),
        "norm must be one of 'linf', 'l2', got 'l3'.",
    ),
    (require.require_one_of, ("p", [1], (1, 2)), "p must be one of 1, 2, got [1]."),
    (require.require_one_of, ("p", X, (1, 2)), "p must be one of 1, 2, got a tensor [2, 1, 4, 4]."),
    (require.require_seed, ("seed", 2**64), f"seed must lie in -2**63..2**64 - 1, got {2**64}."),
    (
        require.require_known_name,
        ("recipe", "smal", ("small", "pool")),
        "There is no recipe 'smal'; did you mean 'small'?",
    ),
    (
        require.require_known_name,
        ("recipe", "x", ("small", "pool")),
        "There is no recipe 'x'; known names are small, pool.",
    ),
    (require.require_whole, ("seed", 1.0), "seed must be a whole number, got 1.0."),
    (require.require_whole, ("seed", True), "seed must be a whole number, got True."),
    (require.require_count, ("steps", 0), "steps must be at least 1, got 0."),
    (require.require_number, ("gamma", "1"), "gamma must be a number, got '1'."),
    (require.require_nonnegative, ("eps", -1), "eps must be a finite number >= 0, got -1."),
    (
        require.require_nonnegative,
        ("eps", float("inf")),
        "eps must be a finite number >= 0, got inf.",
    ),
    (require.require_positive, ("penalty", 0), "penalty must be a finite number > 0, got 0."),
    (
        require.require_numbers,
        ("eps", "0.1"),
        "eps must be a number or a list of numbers, got '0.1'.",
    ),
    (
        require.require_floating,
        ("PGD", "x", X.to(torch.uint8)),
        "PGD: x must be a floating-point tensor, got torch.uint8; divide 8-bit images by 255.",
    ),
    (
        require.require_integers,
        ("labels", [1]),
        "labels must be an integer tensor such as int64, got list; use torch.as_tensor.",
    ),
    (
        require.require_labels,
        ("PGD", "labels", torch.zeros(3, dtype=torch.int64), X),
        "PGD: labels must have shape [N] = [2], got [3].",
    ),
    (
        require.require_range,
        ("PGD", "labels", torch.tensor([0, 9]), 3),
        "PGD: labels must lie in 0..2 for 3 classes, got 0..9.",
    ),
]


@pytest.mark.parametrize(("check", "arguments", "expected"), PASSES)
def test_what_passes_is_returned(
    check: Callable[..., Any], arguments: tuple[Any, ...], expected: Any
) -> None:
    found = check(*arguments)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(("check", "arguments", "sentence"), FAILS)
def test_what_fails_is_met_with_one_sentence(
    check: Callable[..., Any], arguments: tuple[Any, ...], sentence: str
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        check(*arguments)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.1", 0.1),
        ("8/255", 8 / 255),
        ("-1", -1.0),
        ("2e-3", 0.002),
        ("1/3", float(Fraction(1, 3))),
    ],
)
def test_numbers_in_texts(text: str, number: float) -> None:
    assert require.number_in(text) == number


@pytest.mark.parametrize(
    "text", ["", "x", "nan", "inf", "1e400", "1e999999999", "1/0", "1/2/3", "/"]
)
def test_texts_without_a_number(text: str) -> None:
    with pytest.raises((ValueError, ArithmeticError)):
        require.number_in(text)
