"""What `fastinterp eval` measures under each attack: a row of `MEASURES` for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

from torch import Tensor

from .._utils.errors import InputError
from ..attacks.aai import AAIKind
from ..attacks.step_size import PAPER_STEP_SIZE, default_step_size
from ..data import ImageData
from ..interpreters.distance import ClassSet
from ..interpreters.registry import interpreter_named
from ..models.gap import GapClassifier
from ..ops.pgd_step import Norm
from .aai_scores import PAPER_K, aai_sweep, paper_noise
from .accuracy import sweep
from .corruptions import CORRUPTIONS, corruption_sweep
from .isa_scores import isa_row
from .protocols import ISA_SEED, PAPER_EPS, PAPER_N, PAPER_SEED, paper_selection
from .tables import Cell, accuracy_table, format_eps

Rows = Sequence[Mapping[str, Any]]
PAPER_STEPS = (200,)
DIGITS_EPS = (0.0, 0.025, 0.05, 0.1, 0.15)  # their recipes train for 0.1
ISA_N = 100
CLASS_SETS: tuple[ClassSet, ...] = get_args(ClassSet)


@dataclass(frozen=True)
class Request:
    """What is to be measured. None leaves a setting to the attack; so does n = 0.

    Attributes:
        model, data: the network and the test set.
        n: images, the first of the paper's selection; None: all.
        protocol: a key of `PROTOCOLS`.
        batch_size: images attacked at a time.
        eps, steps, step_size, norm, interpreter, classes, seed, kind, k, hinge: as on the command
            line.
    """

    model: GapClassifier
    data: ImageData
    n: int | None = 0
    protocol: str = "paper"
    batch_size: int = 100
    eps: Sequence[float] | None = None
    steps: Sequence[int] | None = None
    step_size: float | None = None
    norm: Norm | None = None
    interpreter: str | None = None
    classes: str | None = None
    seed: int | None = None
    kind: AAIKind | None = None
    k: int | None = None
    hinge: float | None = None

    def count(self, default: int) -> int:
        """How many images are measured."""
        return min(default, len(self.data)) if self.n == 0 else self.n or len(self.data)

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Images [n, C_in, H, W], labels [n] and the paper's targets [n]."""
        classes = self.data.num_classes
        n = self.count(PAPER_N)
        chosen, offsets = paper_selection(len(self.data), n, num_classes=classes)
        labels = self.data.labels[chosen]
        return self.data.float(chosen), labels, (labels + offsets.to(labels)) % classes

    def radii(self) -> Sequence[float]:
        """eps, by default the columns of Table 3, or what suits the data set; those are linf's."""
        if not self.eps and self.norm not in (None, "linf"):
            raise InputError(f"--norm {self.norm} needs --eps; only linf has usual radii.")
        return self.eps or usual_columns(self.data)


@dataclass(frozen=True)
class Measure:
    """How one attack is measured.

    Attributes:
        run: request -> rows.
        shows: what the rows say, in words.
        takes: the settings of a request that mean something here.
        protocols: those there are.
        table: rows -> header and body for a terminal.
        n: images by default.
        norm: of the ball by default, None where there is none.
        seed: of what is drawn by default.
    """

    run: Callable[[Request], Rows]
    shows: str
    takes: frozenset[str]
    protocols: tuple[str, ...]
    table: Callable[[Rows], tuple[list[str], list[list[Cell]]]]
    n: int = PAPER_N
    norm: Norm | None = None
    seed: int = 0


def usual_columns(data: ImageData) -> tuple[float, ...]:
    """The linf radii that a data set is tried with: the paper's, or of digits its own."""
    if data.name == "digits":
        return DIGITS_EPS
    return PAPER_EPS["mnist" if data.images.shape[1] == 1 else "cifar10"]


def usual_eps(data: ImageData) -> float:
    """The linf radius that the recipes of a data set train for; of unknown ones 8/255."""
    if data.name == "digits":
        return 0.1
    return 0.3 if data.images.shape[1] == 1 else 8 / 255


OPTIONS = (
    "eps",
    "steps",
    "step_size",
    "norm",
    "interpreter",
    "classes",
    "seed",
    "kind",
    "k",
    "hinge",
)


def measure(attack: str, request: Request) -> Rows:
    """Rows of a request under an attack.

    Raises:
        InputError: the request sets something that the attack does not have, or that does not fit.
    """
    kind = MEASURES[attack]
    for name in OPTIONS:
        if getattr(request, name) is not None and name not in kind.takes:
            takes = ", ".join(_option(each) for each in sorted(kind.takes))
            raise InputError(
                f"{_option(name)} means nothing to --attack {attack}, which takes {takes}."
            )
    if request.protocol not in kind.protocols:
        raise InputError(
            f"--attack {attack} has the protocol {', '.join(kind.protocols)} alone, "
            f"got {request.protocol!r}."
        )
    return kind.run(request)


def settings_used(attack: str, request: Request) -> dict[str, Any]:
    """Norm, step size, seed and the like as they were taken; None where there is none."""
    kind = MEASURES[attack]
    step_size: float | str | None = request.step_size
    if step_size is None and "step_size" in kind.takes:
        in_linf = kind.norm == "linf" and request.norm in (None, "linf")
        in_ball = PAPER_STEP_SIZE if in_linf else "2.5 eps / steps"
        step_size = "eps / sqrt(steps)" if attack in CORRUPTIONS else in_ball
    seed = kind.seed if request.seed is None else request.seed
    used = {"norm": request.norm or kind.norm, "step_size": step_size, "seed": seed}
    if attack == "aai":
        of_aai = {"kind": request.kind or "topk", "k": request.k or PAPER_K}
        used |= {**of_aai, "hinge": request.hinge or 0.0}
    return used


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _pgd(request: Request) -> Rows:
    images, labels, _ = request.batch()
    return sweep(
        request.model,
        images,
        labels,
        eps=request.radii(),
        steps=request.steps or PAPER_STEPS,
        protocol=request.protocol,
        norm=request.norm or "linf",
        step_size=request.step_size,
        batch_size=request.batch_size,
        seed=request.seed or 0,
    )


def _aai(request: Request) -> Rows:
    """Tables 2, A4 and A5; the paper's random starts are for linf and for want of a seed."""
    make = interpreter_named(request.interpreter or "cam", class_wise=True)
    images, labels, _ = request.batch()
    norm = request.norm or "linf"
    noise = None
    if norm == "linf" and request.seed is None:
        n_test, classes = len(request.data), request.data.num_classes
        noise = paper_noise(n_test, len(images), images.shape[1:], num_classes=classes)
    rows: list[dict[str, Any]] = []
    for steps in request.steps or PAPER_STEPS:
        for eps in request.radii():
            size = request.step_size
            found = aai_sweep(
                request.model,
                make(request.model),
                images,
                labels,
                eps=[eps],
                steps=steps,
                step_size=default_step_size(norm, eps, steps) if size is None else size,
                kind=request.kind or "topk",
                k=request.k or PAPER_K,
                # The tables' protocol holds no prediction; who asks for a hinge wants it kept.
                hinge=request.hinge or 0.0,
                keep="best" if request.hinge else "last",
                norm=norm,
                noise=noise,
                batch_size=request.batch_size,
                seed=request.seed or 0,
            )
            rows += [_without_nan(row) for row in found]
    return rows


def _isa(request: Request) -> Rows:
    """Table 1: a row for each norm and set of classes."""
    if request.norm == "linf":
        raise InputError("--norm is of the discrepancy with --attack isa: l1 or l2, got 'linf'.")
    interpreter = request.interpreter or "cam"
    classes = CLASS_SETS if interpreter != "repr" else ("2-class",)
    if request.classes is not None:
        classes = tuple(each for each in CLASS_SETS if each == request.classes)
    rows: list[dict[str, Any]] = []
    for norm in ("l1", "l2"):
        if request.norm not in (None, norm):
            continue
        for each in classes:
            row = isa_row(
                request.model,
                request.data,
                interpreter,
                "l1" if norm == "l1" else "l2",
                each,
                n=request.count(ISA_N),
                batch_size=request.batch_size,
                seed=ISA_SEED if request.seed is None else request.seed,
            )
            rows.append(_without_nan(row))
    return rows


def _corruption(attack: str, request: Request) -> Rows:
    """Table 5."""
    return corruption_sweep(
        request.model,
        *request.batch(),
        attack=attack,
        eps=request.eps,
        steps=request.steps or PAPER_STEPS,
        step_size=request.step_size,
        protocol=request.protocol,
        batch_size=request.batch_size,
        seed=request.seed or 0,
    )


def _without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN; no data is None."""
    return {key: None if value != value else value for key, value in row.items()}


def _columns(names: Sequence[str], rows: Rows) -> tuple[list[str], list[list[Cell]]]:
    """The fields `names` of the rows as a table; "-" where there is no data."""

    def cell(name: str, value: Any) -> Cell:
        if value is None:
            return "-"
        return format_eps(value) if name == "eps" else value

    body = [[cell(name, row[name]) for name in names] for row in rows]
    return [name.replace("_", " ") for name in names], body


BOTH = ("paper", "best")
_SIZED = frozenset({"eps", "steps", "step_size", "seed"})
MEASURES: dict[str, Measure] = {
    "pgd": Measure(
        _pgd,
        "accuracy",
        _SIZED | {"norm"},
        BOTH,
        accuracy_table,
        norm="linf",
    ),
    "aai": Measure(
        _aai,
        "Kendall's tau and top-k intersection of maps",
        _SIZED | {"norm", "interpreter", "kind", "k", "hinge"},
        ("paper",),
        partial(_columns, ("eps", "steps", "kendall_tau", "topk_intersection", "n_unchanged")),
        norm="linf",
        seed=PAPER_SEED,
    ),
    "isa": Measure(
        _isa,
        "NDS and NSL",
        frozenset({"norm", "interpreter", "classes", "seed"}),
        ("paper",),
        partial(_columns, ("interpreter", "norm", "classes", "nds", "nsl", "n")),
        n=ISA_N,
        seed=ISA_SEED,
    ),
    **{
        name: Measure(
            partial(_corruption, name),
            "accuracy",
            _SIZED - {"step_size"} if name == "jpeg-l1" else _SIZED,
            BOTH,
            accuracy_table,
        )
        for name in CORRUPTIONS
    },
}
"""Name on the command line -> how it is measured."""
