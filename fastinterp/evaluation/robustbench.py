"""RobustBench's threat models, and the JSON that a claim to its leaderboard needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .._utils.errors import InputError
from .._utils.require import require_known_name
from .._version import __version__
from ..ops.pgd_step import Norm


@dataclass(frozen=True)
class ThreatModel:
    """One leaderboard (Croce et al., 2021).

    Attributes:
        dataset, norm, eps: what is attacked, and how far.
        n: number of test images.
        title: RobustBench's name of the threat model.
    """

    dataset: str
    norm: Norm
    eps: float
    n: int
    title: str


THREAT_MODELS = {
    "cifar10-linf": ThreatModel("cifar10", "linf", 8 / 255, 10_000, "Linf"),
    "cifar10-l2": ThreatModel("cifar10", "l2", 0.5, 10_000, "L2"),
    "cifar100-linf": ThreatModel("cifar100", "linf", 8 / 255, 10_000, "Linf"),
    "imagenet-linf": ThreatModel("imagenet", "linf", 4 / 255, 5_000, "Linf"),
}
"""Name -> leaderboard."""


def robustbench_entry(
    rows: Sequence[Mapping[str, Any]],
    threat_model: str,
    *,
    name: str,
    architecture: str,
    authors: str = "",
    link: str = "",
    venue: str = "",
    additional_data: bool = False,
) -> dict[str, Any]:
    """The entry of a network for RobustBench, in the form of its `model_info` files.

    Args:
        rows: of `sweep(..., eps=[0, threat.eps], protocol="autoattack")` on the whole test set.
        threat_model: a key of `THREAT_MODELS`.
        name, architecture, authors, link, venue: of the network and its paper, as shown.
        additional_data: whether other images than the training set's were used.

    Returns:
        The entry, ready for `json.dump`; accuracies in percent.

    Raises:
        InputError: the clean row or that of the threat model's eps is missing, was measured under
            another protocol or on another number of images, or is marked as unreliable.
    """
    threat = THREAT_MODELS[require_known_name("threat_model", threat_model, THREAT_MODELS)]
    clean, robust = (_row(rows, eps, threat) for eps in (0.0, threat.eps))
    if "square" not in robust.get("by_attack", {}) or "fab-t" not in robust["by_attack"]:
        raise InputError(
            "robustbench_entry: the row was not measured by AutoAttack; measure it with "
            'sweep(..., protocol="autoattack").'
        )
    if robust.get("potentially_unreliable"):
        raise InputError(
            "robustbench_entry: the figure may be unreliable: "
            f"{robust['potentially_unreliable']}; RobustBench takes no such network."
        )
    return {
        "link": link,
        "name": name,
        "authors": authors,
        "additional_data": additional_data,
        "number_forward_passes": 1,
        "dataset": threat.dataset,
        "threat_model": threat.title,
        "venue": venue,
        "architecture": architecture,
        "eps": threat.eps,
        "clean_acc": _percent(clean),
        "reported": _percent(robust),
        "autoattack_acc": _percent(robust),
        "n": threat.n,
        "by_attack": dict(robust["by_attack"]),
        "versions": {"fastinterp": __version__, "torch": torch.__version__},
    }


def _row(rows: Sequence[Mapping[str, Any]], eps: float, threat: ThreatModel) -> Mapping[str, Any]:
    found = [row for row in rows if abs(row["eps"] - eps) < 1e-9]
    if not found:
        raise InputError(f"robustbench_entry: there is no row of eps {eps:g}; measure it too.")
    if found[0]["n"] != threat.n:
        raise InputError(
            f"robustbench_entry: {threat.dataset} is measured on {threat.n} images, got "
            f"{found[0]['n']}; measure all of them (--n all)."
        )
    return found[0]


def _percent(row: Mapping[str, Any]) -> str:
    return f"{100 * row['accuracy']:.2f}"
