"""Attacks and evaluation against other libraries: one network, the same images and steps."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from benchmarks import attack_peers as peers
from benchmarks.group import Entries, Facts, Group, Skipped
from benchmarks.ig_groups import ig_group
from benchmarks.subject import subject
from benchmarks.timing import Thunk
from fastinterp.evaluation import sweep

OURS, LEAVING, FLOOR = "fastinterp", "fastinterp, fooled images leave", "the network alone"
TORCHATTACKS, FOOLBOX, ART = "torchattacks", "foolbox", "ART"
PAPER, BEST = "fastinterp, protocol paper", "fastinterp, protocol best"
PEERS: dict[str, peers.MakeAttack] = {
    TORCHATTACKS: peers.torchattacks,
    FOOLBOX: peers.foolbox,
    ART: peers.art,
}
PGD_ENTRIES: dict[str, peers.MakeAttack] = {
    OURS: peers.ours,
    LEAVING: peers.ours_leaving,
    **PEERS,
    FLOOR: peers.network_alone,
}
EPS, STEP_SIZE, STEPS = 0.1, 0.01, 40
SWEEP_RADII, SWEEP_STEPS, SWEEP_IMAGES = (0.05, 0.1, 0.2), 20, 100


def all_groups(device: str) -> list[Group]:
    return [_pgd(device), _sweep(device), ig_group(device)]


def _pgd(device: str) -> Group:
    return Group(
        section="PGD, linf, from x",
        title=f"PGD, 200 images, eps {EPS}, {STEPS} steps of {STEP_SIZE}",
        entries=tuple(PGD_ENTRIES),
        build=partial(_pgd_entries, device),
        ours=OURS,
        baseline=TORCHATTACKS,
        floor=(FLOOR,),
        facts=partial(equal_verdicts, device=device),
        budget=20.0,
    )


def _pgd_entries(device: str = "cpu") -> Entries:
    s = subject(device)

    def entry(make: peers.MakeAttack) -> Thunk | Skipped:
        attack = peers.attempt(make, s.model, EPS, STEP_SIZE, STEPS)
        return attack if isinstance(attack, Skipped) else lambda: attack(s.images, s.labels)

    return {name: entry(make) for name, make in PGD_ENTRIES.items()}


def equal_verdicts(results: dict[str, Any], device: str = "cpu") -> Facts:
    """Assert that every image gets one verdict from all libraries; record accuracies and shares.

    Where images leave once they are fooled, an iterate before the last may be the one that fools.
    """
    s = subject(device)
    right = {
        name: peers.verdicts(s.model, x_adv, s.labels)
        for name, x_adv in results.items()
        if name != FLOOR
    }
    facts: Facts = {}
    for name, verdict in right.items():
        share = float((verdict == right[OURS]).float().mean())
        facts[name] = {"accuracy": float(verdict.float().mean()), "equal_verdicts": share}
        assert name == LEAVING or share == 1, f"{name} gives {share:.3f} of our verdicts"
    assert not bool((right[LEAVING] & ~right[OURS]).any()), "leaving early cannot save an image"
    return facts


def _sweep(device: str) -> Group:
    return Group(
        section="accuracy over eps",
        title=f"{len(SWEEP_RADII)} radii, {SWEEP_IMAGES} images, {SWEEP_STEPS} steps",
        entries=(PAPER, BEST, *PEERS),
        build=partial(_sweep_entries, device),
        ours=PAPER,
        baseline=TORCHATTACKS,
        facts=ordered_accuracies,
        budget=20.0,
    )


def _sweep_entries(device: str = "cpu") -> Entries:
    s = subject(device)
    x, y = s.images[:SWEEP_IMAGES], s.labels[:SWEEP_IMAGES]

    def by_protocol(protocol: str) -> Thunk:
        def run() -> list[float]:
            cells = sweep(
                s.model, x, y, eps=SWEEP_RADII, steps=(SWEEP_STEPS,), protocol=protocol,
                step_size=STEP_SIZE, batch_size=SWEEP_IMAGES, progress=False,
            )  # fmt: skip
            return [cell["accuracy"] for cell in cells]

        return run

    def by_peer(make: peers.MakeAttack) -> Thunk | Skipped:
        attack = peers.attempt(make, s.model, EPS, STEP_SIZE, SWEEP_STEPS)
        if isinstance(attack, Skipped):
            return attack
        at = partial(_at, make)
        return lambda: peers.accuracies(at, SWEEP_RADII, x, y, s.model)

    def _at(make: peers.MakeAttack, eps: float) -> peers.Attack:
        return make(s.model, eps, STEP_SIZE, SWEEP_STEPS)

    made: Entries = {PAPER: by_protocol("paper"), BEST: by_protocol("best")}
    return made | {name: by_peer(make) for name, make in PEERS.items()}


def ordered_accuracies(results: dict[str, Any]) -> Facts:
    """Assert that the paper's protocol measures what the peers measure, and `best` no more."""
    for name in PEERS:
        if name in results:
            gap = (torch.tensor(results[name]) - torch.tensor(results[PAPER])).abs().max()
            assert gap < 1e-6, f"{name} measures {results[name]}, we {results[PAPER]}"
    assert all(b <= p for b, p in zip(results[BEST], results[PAPER], strict=True))
    return {name: {"accuracies": accuracies} for name, accuracies in results.items()}
