"""What evaluation and audit say of planted fakes and of honest networks: docs/results/audit.md.

python -m benchmarks.audit_fakes --networks FOLDER --data-dir FOLDER [--only NAME ...]
    [--parts truth|plain|best|audit ...] [--again] [--quick]

The folders hold the authors' released networks, and MNIST and CIFAR-10. The fakes are those of
tests/evaluation/fakes.py. A run writes after each network and measures what is missing;
with --again, also what is there. With --quick AutoAttack is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.record import ROOT
from fastinterp import data, models
from fastinterp._utils.files import write_json
from fastinterp.attacks import APGD, AutoAttack, Margin, MarginTowards, Square
from fastinterp.attacks.ensemble import Attack, Seeded
from fastinterp.attacks.expectation import MeanOfPasses
from fastinterp.evaluation import (
    AccuracyRow,
    UnreliableFigures,
    audit,
    markdown_table,
    paper_selection,
    sweep,
)
from fastinterp.evaluation.measuring import accuracy_of, misclassified
from fastinterp.evaluation.reliability import random_numbers
from fastinterp.evaluation.tables import Cell
from fastinterp.models import GapClassifier
from fastinterp.models.freeze import fold, freeze

sys.path.insert(0, str(ROOT / "tests" / "evaluation"))

from fakes import FAKES, RANDOM

RESULTS = ROOT / "docs" / "results"
HONEST = {
    **{
        f"MNIST Small {name}": f"mnist_smallgap_{name.lower().replace('-', '')}_100"
        for name in ("Normal", "Adv", "TRADES", "Int", "Int-Adv")
    },
    "CIFAR-10 Small Int": "cifar_smallgap_int_200",
    "CIFAR-10 WResnet Int": "cifar_wresnet_int_200",
}
# Fakes that are made of Adv, not Normal, whose figures would be near 0 whatever hides them.
OF_ADV = {*RANDOM, "median with gradient", "detector", "anti-adversarial", "batch dependence"}
N, FEW = 50, 20  # images; of WResnet
STEPS = 100  # of plain PGD and of `best`
AUDITED = (1, 10, 40)
SAMPLES = 20
ALLOWED = 0.05  # above the truth


@dataclass(frozen=True)
class Subject:
    """A network of the table: an honest one, or a fake with the one that it is made of."""

    name: str
    model: GapClassifier
    undefended: GapClassifier
    images: Tensor
    labels: Tensor
    eps: float

    @property
    def is_random(self) -> bool:
        return self.name.split(" (")[0] in RANDOM

    @property
    def measured(self) -> nn.Module:
        """The network, or for a random one the mean of its passes."""
        return MeanOfPasses(self.model, SAMPLES).eval() if self.is_random else self.model

    def sweep(self, **settings: Any) -> list[AccuracyRow]:
        about: dict[str, Any] = {"eps": self.eps, "steps": STEPS, "progress": False}
        return sweep(self.model, self.images, self.labels, **about, **settings)


def subjects(networks: Path, data_dir: Path) -> Iterator[Subject]:
    """The fakes, then the honest networks."""

    @cache
    def load(file: str) -> tuple[GapClassifier, Tensor, Tensor, float]:
        dataset = "mnist" if file.startswith("mnist") else "cifar10"
        test = data.load(dataset, data_dir)
        chosen, _ = paper_selection(len(test), FEW if "wresnet" in file else N)
        model = models.load(networks / f"{file}.pkl").eval()
        eps = 0.3 if dataset == "mnist" else 8 / 255
        return model, test.float(chosen), test.labels[chosen], eps

    stored = data.load("mnist", data_dir, "train").float(torch.arange(500))
    for name, make in FAKES.items():
        base = "adv" if name in OF_ADV else "normal"
        model, x, y, eps = load(f"mnist_smallgap_{base}_100")
        # Its steps take a tenth of the time that those of the network as written take.
        quick = freeze(fold(model, "logits", x), x)
        assert isinstance(quick, GapClassifier)
        fake = make(quick.eval(), stored).eval()
        yield Subject(f"{name} ({base.title()})", fake, model, x, y, eps)
    for name, file in HONEST.items():
        model, x, y, eps = load(file)
        yield Subject(name, model, model, x, y, eps)


def truth(subject: Subject, quick: bool = False) -> dict[str, float]:
    """What strong attacks leave of a fake, up to the first that leaves nothing.

    The accuracies are those under images made against the undefended network, under Square, under
    Auto-PGD towards the likeliest wrong classes, and under AutoAttack.
    """
    x, y, eps = subject.images, subject.labels, subject.eps
    network, undefended = subject.measured, subject.undefended
    if undefended is subject.model:
        return {}
    transfer = APGD(undefended, eps, STEPS, objective=Margin(), keep="best")
    version: Literal["rand", "standard"] = "rand" if subject.is_random else "standard"
    attacks: dict[str, list[Attack]] = {
        "transfer": [Seeded(transfer, 0, "transfer")],
        "Square": [Square(network, eps, queries=500 if subject.is_random else 5000)],
        "Auto-PGD": [
            Seeded(APGD(network, eps, STEPS, objective=MarginTowards(rank)), 0, f"towards {rank}")
            for rank in (1, 2, 3)
        ],
    }
    if not quick:
        attacks["AutoAttack"] = [AutoAttack(subject.model, eps, version=version)]
    left: dict[str, float] = {}
    for name, several in attacks.items():
        fooled = torch.zeros(len(x), dtype=torch.bool)
        with random_numbers(x.device, 0):
            for attack in several:
                rows = (~fooled).nonzero().squeeze(1)
                fooled[rows] = misclassified(network, attack(x[rows], y[rows]), y[rows])
        left[name] = accuracy_of(fooled)
        if left[name] == 0:
            break
    return left


def plain(subject: Subject) -> float:
    """Accuracy under the paper's attack."""
    with random_numbers(subject.images.device, 0):
        (row,) = subject.sweep()
    return row["accuracy"]


def best(subject: Subject) -> dict[str, Any]:
    """Accuracy under the protocol `best`, and why it is marked."""
    (row,) = subject.sweep(protocol="best", samples=SAMPLES if subject.is_random else None)
    marks = row.get("potentially_unreliable", "")
    return {"accuracy": row["accuracy"], "marks": marks}


def failed(subject: Subject) -> list[str]:
    """The checks of the audit that fail."""
    with random_numbers(subject.images.device, 0):
        images, settings = (subject.images, subject.labels), {"steps": AUDITED, "progress": False}
        checks = audit(subject.model, *images, eps=subject.eps, **settings)
    return [check.name for check in checks if check.passed is False]


PARTS: dict[str, Callable[[Subject], Any]] = {
    "truth": truth,
    "plain": plain,
    "best": best,
    "audit": failed,
}


def page(rows: list[dict[str, Any]]) -> str:
    """The table, and whether it is as it should be."""
    header = ["network", "n", "truth", "found by", "plain PGD", "`best`", "marks", "audit: failed"]
    body: list[list[Cell]] = []
    high, passed, blamed = [], [], []
    for row in rows:
        name, left, marks, failures = (
            row["network"],
            row["truth"],
            row["best"]["marks"],
            row["audit"],
        )
        by = min(left, key=left.__getitem__, default="-")
        least = left.get(by, 1.0)
        figures = [left.get(by, "-"), by, row["plain"], row["best"]["accuracy"]]
        body.append([name, row["n"], *figures, marks or "-", ", ".join(failures) or "-"])
        if name in HONEST and (marks or failures):
            blamed.append(name)
        if row["best"]["accuracy"] > least + ALLOWED and not marks:
            high.append(name)
        if row["plain"] > least + ALLOWED and not failures:
            passed.append(name)
    notes = {
        f"Fakes whose unmarked `best` is more than {ALLOWED} above the truth": high,
        f"Fakes whose plain PGD is more than {ALLOWED} above the truth, and that pass": passed,
        "Honest networks that are marked, or that fail a check": blamed,
    }
    text = [f"- {what}: {', '.join(names) or 'none'}." for what, names in notes.items()]
    return "\n".join(["# Planted fakes", "", markdown_table(header, body), "", *text, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure planted fakes and honest networks.")
    parser.add_argument("--networks", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--parts", nargs="+", default=tuple(PARTS), choices=PARTS)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "audit.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UnreliableFigures)
    content = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    known = {row["network"]: row for row in content["rows"]}
    for subject in subjects(args.networks, args.data_dir):
        row = known.setdefault(subject.name, {"network": subject.name})
        if not any(word in subject.name for word in args.only):
            continue
        row |= {"n": len(subject.images), "eps": subject.eps}
        for part in args.parts:
            if part not in row or args.again:
                measure = partial(truth, quick=args.quick) if part == "truth" else PARTS[part]
                row[part] = measure(subject)
                print(subject.name, part, row[part], flush=True)
        write_json(args.out, {"rows": list(known.values())})
        rows = [row for row in known.values() if row.keys() >= PARTS.keys()]
        args.out.with_suffix(".md").write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
