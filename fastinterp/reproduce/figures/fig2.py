"""Figure 2: how much of each discrepancy remains when an attack hides from it."""

from __future__ import annotations

import math
from itertools import accumulate, product
from typing import Literal, cast

import torch
from torch import Tensor

from ..._utils.errors import InputError
from ...attacks import ISA
from ...interpreters import CAM
from ...interpreters.distance import ClassSet, interpretability_discrepancy
from ...ops import kendall_tau
from ..results import ResultRow, Results
from .draw_fig2 import draw
from .figure import PaperFigure, Setting
from .subject import NEEDS, ROLES, SCENES, Subject, find_subject, holds

Norm = Literal["l1", "l2"]
CURVES = tuple(
    cast(tuple[Norm, ClassSet], pair)
    for pair in product(("l1", "l2"), ("1-class", "2-class", "all-class"))
)
PENALTIES = (1.0, 1.15, 1.3, 1.45, 1.6)  # radii over the smallest successful one, as in Table 1
EXAMPLES = ("original", "pgd", "1-class", "2-class", "all-class")
PAPER = {  # of another image of restricted ImageNet, which the paper does not name
    "pgd": (0.4782, 0.5039),
    "1-class": (0.7107, 0.4129),
    "2-class": (0.5213, 0.5416),
    "all-class": (0.5342, 0.5561),
}

Examples = dict[str, tuple[float, Tensor]]


def measure(setting: Setting) -> Results:
    """A row for each point of a curve and, of panel c, for each map; its images and maps as arrays.

    Arrays: "NAME" [C_in, H, W] and "maps-NAME" [2, h, w], of t and t', for each of `EXAMPLES`.
    """
    network = FIGURE.chosen(setting.only)[0]
    if holds(setting, network, len(CURVES) * len(PENALTIES) + len(ROLES) * len(EXAMPLES)):
        return setting.known
    from tqdm import tqdm

    subject = find_subject(setting, network)
    smallest = _smallest(subject)
    rows: list[ResultRow] = []
    examples: Examples = {
        "original": (0.0, subject.x[0]),
        "pgd": (subject.scene.eps, subject.x_adv[0]),
    }
    hidden = None if setting.progress else True  # None: hidden where standard error is no terminal
    for norm, classes in tqdm(CURVES, unit="curve", disable=hidden):
        curve, attacked = _known(setting, subject, norm, classes) or _curve(
            subject, smallest, norm, classes
        )
        rows += curve
        if norm == "l1":
            examples[classes] = (curve[-1]["eps"], attacked)
        setting.save(_with_examples(subject, rows, examples))
    return _with_examples(subject, rows, examples)


def _smallest(subject: Subject) -> Tensor:
    """The smallest radius with which ISA fools the network without hiding: [1]."""
    eps = ISA(subject.model, CAM(subject.model)).smallest(subject.x, subject.target).eps
    if not bool(eps.isfinite().all()):
        raise InputError(
            f"ISA does not turn test image {subject.about['image']} of {subject.about['dataset']} "
            f"into a {subject.scene.target}; take another network."
        )
    return eps


def _curve(
    subject: Subject, smallest: Tensor, norm: Norm, classes: ClassSet
) -> tuple[list[ResultRow], Tensor]:
    """A row for each radius, and x' [C_in, H, W] of the largest one.

    The radii are a batch of the same image; each has its own search for the weight.
    """
    attack = ISA(subject.model, CAM(subject.model), norm, classes)
    count = len(PENALTIES)
    x = subject.x.expand(count, *subject.x.shape[1:]).contiguous()
    label, target = subject.label.expand(count), subject.target.expand(count)
    eps = smallest * torch.tensor(PENALTIES).to(smallest)
    found = attack(x, label, target, eps)
    with torch.no_grad():
        distance = interpretability_discrepancy(
            attack.interpreter,
            x,
            found.x_adv,
            label,
            target,
            classes=classes,
            p=attack.p,
            squared=norm == "l2",
            normalized=True,
        ).tolist()
    about = {**subject.about, "panel": _panel(norm), "attack": "isa", "classes": classes}
    reached = [d if ok else math.inf for d, ok in zip(distance, found.success, strict=True)]
    lowest = list(accumulate(reached, min))
    rows = [
        {
            **about,
            "norm": norm,
            "eps": float(eps[i]),
            "penalty": PENALTIES[i],
            "success": bool(found.success[i]),
            "weight": float(found.weight[i]),
            "discrepancy": distance[i],
            "lowest": lowest[i] if found.success[i] else None,
        }
        for i in range(count)
    ]
    return rows, found.x_adv[-1]


def _panel(norm: Norm) -> str:
    return "a" if norm == "l1" else "b"


def _known(
    setting: Setting, subject: Subject, norm: Norm, classes: ClassSet
) -> tuple[list[ResultRow], Tensor] | None:
    """A curve that an earlier run measured of the same image and network."""
    about = {**subject.about, "panel": _panel(norm), "classes": classes}
    rows = [row for row in setting.known.rows if about.items() <= row.items()]
    stored = setting.known.arrays.get(classes)
    if len(rows) != len(PENALTIES) or stored is None:
        return None
    return rows, torch.from_numpy(stored).to(setting.device)


@torch.no_grad()
def _with_examples(subject: Subject, curves: list[ResultRow], examples: Examples) -> Results:
    """The rows of the curves and of panel c, whose examples are (eps, x') by name."""
    images = torch.stack([image for _, image in examples.values()])
    maps = CAM(subject.model)(images, subject.classes).cpu()
    probabilities = subject.probabilities(images).tolist()
    rows, arrays = list(curves), {}
    paper = PAPER if subject.about["dataset"] == "restricted_imagenet" else {}
    for i, (name, (eps, image)) in enumerate(examples.items()):
        arrays[name], arrays[f"maps-{name}"] = image.cpu().numpy(), maps[i].numpy()
        tau = kendall_tau(maps[0].flatten(1), maps[i].flatten(1)).tolist()
        rows += [
            {
                **subject.about,
                "panel": "c",
                "attack": name if name in ("original", "pgd") else "isa",
                "classes": None if name in ("original", "pgd") else name,
                "norm": None if name in ("original", "pgd") else "l1",
                "eps": eps,
                "class": role,
                "probability": probabilities[i][k],
                "paper": paper.get(name, (None, None))[k],
                "kendall_tau": tau[k],
            }
            for k, role in enumerate(ROLES)
        ]
    return Results(rows, arrays)


FIGURE = PaperFigure(
    "fig2",
    "what is left of each discrepancy when an attack hides from it, and the attacked maps",
    NEEDS,
    15,
    tuple(scene.network for scene in SCENES),
    measure,
    draw,
    ("panel", "attack", "classes", "eps", "discrepancy", "class", "paper", "kendall_tau"),
    n=1,
    alternatives=True,
)
