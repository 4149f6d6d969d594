"""Entries for RobustBench's leaderboards."""

from __future__ import annotations

import json

import pytest

from fastinterp._utils.errors import InputError
from fastinterp.evaluation import THREAT_MODELS, robustbench_entry

THREAT = THREAT_MODELS["cifar10-linf"]
BY = {"apgd-ce": 0.56, "apgd-t": 0.53, "fab-t": 0.53, "square": 0.5312}


def rows(**changes: object) -> list[dict]:
    robust = {"eps": THREAT.eps, "steps": 100, "accuracy": 0.5312, "n": 10_000, "by_attack": BY}
    clean = {"eps": 0.0, "steps": 100, "accuracy": 0.8491, "n": robust["n"]}
    return [clean, robust | changes]


def test_an_entry_has_what_a_claim_needs() -> None:
    entry = robustbench_entry(rows(), "cifar10-linf", name="Int", architecture="WRN-28-10")
    assert entry["clean_acc"] == "84.91"
    assert entry["autoattack_acc"] == "53.12"
    assert entry["threat_model"] == "Linf" and entry["eps"] == 8 / 255
    assert {"link", "venue", "authors", "additional_data", "versions"} <= entry.keys()
    assert json.loads(json.dumps(entry)) == entry


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n": 200}, "10000 images"),
        ({"eps": 0.1}, "no row of eps"),
        ({"by_attack": {"apgd-margin": 0.5, "square": 0.5}}, "AutoAttack"),
        ({"potentially_unreliable": "two passes differ"}, "two passes differ"),
    ],
)
def test_figures_that_make_no_claim_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        robustbench_entry(rows(**changes), "cifar10-linf", name="Int", architecture="WRN")
