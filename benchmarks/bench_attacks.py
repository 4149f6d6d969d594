"""Attacks and evaluation by four libraries: one network, the same images and steps. `make bench`
runs this.

The attack is projected gradient descent in the linf ball, started at x.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.utils import Entries, Facts, Group, Thunk, describe, unavailable
from fastinterp import PGD, data, models
from fastinterp.evaluation import paper_selection, sweep
from fastinterp.models import GapClassifier
from fastinterp.ops.climb import one_by_one
from fastinterp.training import NormalTrainer

NETWORKS = "FASTINTERP_BENCH_NETWORKS"
DATA_DIR = "FASTINTERP_BENCH_DATA_DIR"
RELEASED = "mnist_smallgap_int_100.pkl"

OURS, LEAVING, FLOOR = "fastinterp", "fastinterp, until each image is fooled", "the network alone"
STEPWISE = "fastinterp, step by step"
PAPER, BEST = "fastinterp, protocol paper", "fastinterp, protocol best"
TORCHATTACKS = "torchattacks"
EPS, STEP_SIZE, STEPS = 0.1, 0.01, 40
RADII, SWEEP_STEPS, SWEEP_IMAGES = (0.05, 0.1, 0.2), 20, 100

Attack = Callable[[Tensor, Tensor], Tensor]  # x, y -> x'
MakeAttack = Callable[[nn.Module, float, int], Attack]  # model, eps, steps


@dataclass(frozen=True)
class Subject:
    """A network in eval mode, 200 images [N, 1, 28, 28] and their labels [N]."""

    model: GapClassifier
    images: Tensor
    labels: Tensor

    def to(self, device: str) -> Subject:
        model = copy.deepcopy(self.model).to(device)
        return Subject(model, self.images.to(device), self.labels.to(device))


@cache
def subject(device: str = "cpu") -> Subject:
    """The released Int network on MNIST if the options name its folders, else a network trained on
    digits for a few seconds, on a CPU in any case."""
    if device != "cpu":
        return subject("cpu").to(device)
    networks, root = os.environ.get(NETWORKS), os.environ.get(DATA_DIR)
    if networks and root:
        model = models.load(f"{networks}/{RELEASED}")
        test = data.load("mnist", root)
        chosen, _ = paper_selection(len(test))
        return Subject(model.eval(), test.float(chosen), test.labels[chosen])
    made = digits_subject()
    NormalTrainer(made.model, lr=1e-3).fit(data.load("digits", split="train"), 10, progress=False)
    made.model.eval()
    return made


def digits_subject() -> Subject:
    """Digits and an untrained network, for measurements that do not depend on the weights."""
    test = data.load("digits", split="test").subset(slice(0, 200))
    return Subject(models.small(seed=0).eval(), test.float(), test.labels)


def by_fastinterp(model: nn.Module, eps: float, steps: int) -> Attack:
    return PGD(model, eps, STEP_SIZE, steps)


def step_by_step(model: nn.Module, eps: float, steps: int) -> Attack:
    """On a GPU, without the kernel that takes all steps in one launch."""
    attack = by_fastinterp(model, eps, steps)

    def run(x: Tensor, y: Tensor) -> Tensor:
        with one_by_one():
            return attack(x, y)

    return run


def until_fooled(model: nn.Module, eps: float, steps: int) -> Attack:
    """An image leaves the batch once the network misclassifies it."""
    return PGD(model, eps, STEP_SIZE, steps, keep="first_fooled")


def by_torchattacks(model: nn.Module, eps: float, steps: int) -> Attack:
    import torchattacks

    return torchattacks.PGD(model, eps, STEP_SIZE, steps, random_start=False)


def by_foolbox(model: nn.Module, eps: float, steps: int) -> Attack:
    import foolbox

    device = next(model.parameters()).device  # else foolbox moves the model to any GPU there is
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=device)
    attack = foolbox.attacks.LinfProjectedGradientDescentAttack(
        abs_stepsize=STEP_SIZE, steps=steps, random_start=False
    )
    return lambda x, y: attack(wrapped, x, y, epsilons=eps)[1]


def by_art(model: Any, eps: float, steps: int) -> Attack:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.attacks.evasion import ProjectedGradientDescent
        from art.estimators.classification import PyTorchClassifier

    def attack(x: Tensor, y: Tensor) -> Tensor:
        wrapped = PyTorchClassifier(
            model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=model.weight.shape[0],
            clip_values=(0.0, 1.0),
            device_type="cpu" if x.device.type == "cpu" else "gpu",
        )
        pgd = ProjectedGradientDescent(
            wrapped, eps=eps, eps_step=STEP_SIZE, max_iter=steps, batch_size=len(x), verbose=False
        )
        return torch.from_numpy(pgd.generate(x.cpu().numpy(), y.cpu().numpy())).to(x.device)

    return attack


def network_alone(model: nn.Module, eps: float, steps: int) -> Attack:
    """The floor: as many passes forward and backward to the image, and nothing else."""

    def passes(x: Tensor, y: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        ones = torch.ones_like(model(x))
        for _ in range(steps):
            torch.autograd.grad(model(x), x, ones)
        return x.detach()

    return passes


PEERS: dict[str, MakeAttack] = {
    TORCHATTACKS: by_torchattacks,
    "foolbox": by_foolbox,
    "ART": by_art,
}
PGD_ENTRIES = {OURS: by_fastinterp, LEAVING: until_fooled, **PEERS, FLOOR: network_alone}


def pgd_entries(device: str) -> dict[str, MakeAttack]:
    return PGD_ENTRIES if device == "cpu" else {**PGD_ENTRIES, STEPWISE: step_by_step}


def groups(device: str) -> list[Group]:
    return [
        Group(
            section="PGD in linf, started at x",
            title=f"PGD, 200 images, eps {EPS}, {STEPS} steps of {STEP_SIZE}",
            entries=tuple(pgd_entries(device)),
            build=partial(build_pgd, device),
            ours=OURS,
            baseline=TORCHATTACKS,
            floor=(FLOOR,),
            facts=partial(equal_verdicts, device=device),
        ),
        Group(
            section="accuracy over eps",
            title=f"accuracy at {len(RADII)} radii, {SWEEP_IMAGES} images, {SWEEP_STEPS} steps",
            entries=(PAPER, BEST, *PEERS),
            build=partial(build_sweep, device),
            ours=PAPER,
            baseline=TORCHATTACKS,
            facts=ordered_accuracies,
        ),
    ]


def build_pgd(device: str) -> Entries:
    s = subject(device)

    def entry(attack: Attack) -> Thunk:
        return lambda: attack(s.images, s.labels)

    return {
        name: attempt(lambda make=make: entry(make(s.model, EPS, STEPS)))
        for name, make in pgd_entries(device).items()
    }


def build_sweep(device: str) -> Entries:
    """Each library's accuracy at each radius; a peer runs one attack after another."""
    s = subject(device)
    x, y = s.images[:SWEEP_IMAGES], s.labels[:SWEEP_IMAGES]

    def by_protocol(protocol: str) -> list[float]:
        cells = sweep(
            s.model, x, y, eps=RADII, steps=(SWEEP_STEPS,), protocol=protocol,
            step_size=STEP_SIZE if protocol == "paper" else None,
            batch_size=SWEEP_IMAGES, progress=False,
        )  # fmt: skip
        return [cell["accuracy"] for cell in cells]

    def by_peer(make: MakeAttack) -> Thunk:
        make(s.model, EPS, SWEEP_STEPS)  # raises if the library is missing

        def run() -> list[float]:
            attacked = (make(s.model, eps, SWEEP_STEPS)(x, y) for eps in RADII)
            return [float(correct(s.model, x_adv, y).float().mean()) for x_adv in attacked]

        return run

    return {
        PAPER: partial(by_protocol, "paper"),
        BEST: partial(by_protocol, "best"),
        **{name: attempt(partial(by_peer, make)) for name, make in PEERS.items()},
    }


def attempt(make: Callable[[], Thunk]) -> Thunk:
    """What `make` makes, or an entry that cannot run: the library is not installed, or a newer
    version of one of its own dependencies breaks it."""
    try:
        return make()
    except Exception as error:
        why = str(error) if isinstance(error, ImportError) else describe(error)
        return unavailable(f"{why}; the extra 'bench' installs the other libraries")


@torch.no_grad()
def correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Which images the network classifies correctly, bool [N]."""
    return model(x).argmax(dim=1) == y


def equal_verdicts(results: dict[str, Any], device: str = "cpu") -> Facts:
    """Assert that every image gets the same verdict from all libraries; record accuracies and the
    share of equal verdicts.

    Where images leave once they are fooled, an earlier iterate than the last may fool.
    """
    s = subject(device)
    verdicts = {
        name: correct(s.model, x_adv, s.labels) for name, x_adv in results.items() if name != FLOOR
    }
    facts: Facts = {}
    for name, verdict in verdicts.items():
        share = float((verdict == verdicts[OURS]).float().mean())
        facts[name] = {"accuracy": float(verdict.float().mean()), "equal_verdicts": share}
        assert name == LEAVING or share == 1, f"{name} gives {share:.3f} of our verdicts"
    saved = verdicts[LEAVING] & ~verdicts[OURS]
    assert not saved.any(), "an image that leaves the batch early cannot be classified correctly"
    return facts


def ordered_accuracies(results: dict[str, Any]) -> Facts:
    """Assert that the paper's protocol gives the peers' accuracies, and `best` no higher ones."""
    for name in PEERS:
        if name in results:
            gap = (torch.tensor(results[name]) - torch.tensor(results[PAPER])).abs().max()
            assert gap < 1e-6, f"{name} measures {results[name]}, we {results[PAPER]}"
    assert all(b <= p for b, p in zip(results[BEST], results[PAPER], strict=True))
    return {name: {"accuracies": accuracies} for name, accuracies in results.items()}


def bench(timed, group, entry):
    timed(group, entry)
