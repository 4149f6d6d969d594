"""What `fastinterp eval` and `reproduce` measure under each attack: `MEASURES`, a row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.require import require_known_name, require_one_of
from ..attacks.aai import AAIKind
from ..attacks.step_size import PAPER_STEP_SIZE
from ..data import ImageData, ImageStream
from ..interpreters.distance import ClassSet
from ..interpreters.registry import interpreter_named
from ..ops.pgd_step import Norm
from .aai_scores import PAPER_K, aai_sweep, paper_noise
from .accuracy import sweep
from .corruptions import CORRUPTIONS, corruption_sweep
from .isa_scores import isa_row
from .protocols import (
    ISA_SEED,
    PAPER_EPS,
    PAPER_N,
    PAPER_SEED,
    PROTOCOLS,
    paper_batch,
    paper_selection,
)
from .tables import Cell, accuracy_table, format_eps, mark
from .worst_maps import aai_best_sweep

Rows = Sequence[Mapping[str, Any]]
PAPER_STEPS = (200,)
DIGITS_EPS = (0.0, 0.025, 0.05, 0.1, 0.15)  # the recipes of digits train for 0.1
ISA_N = 100
BEST_CHOOSES = ("kind", "hinge", "step_size")  # settings of aai that `best` does not take
CLASS_SETS: tuple[ClassSet, ...] = get_args(ClassSet)


@dataclass(frozen=True)
class Request:
    """A measurement that is asked for. A setting that is None, or n = 0, is left to the attack.

    Attributes:
        model, data: the network and the test set.
        n: number of images, the first of the paper's selection; None: all.
        protocol: a key of `PROTOCOLS`.
        batch_size: images attacked at a time.
        eps, steps, step_size, norm, interpreter, classes, seed, samples, kind, k, hinge: as on the
            command line.
        state: a file for verdicts of attacks that are done; see `sweep`.
    """

    model: nn.Module
    data: ImageData | ImageStream
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
    samples: int | None = None
    kind: AAIKind | None = None
    k: int | None = None
    hinge: float | None = None
    state: Path | None = None

    def count(self, default: int) -> int:
        """The number of images that are measured."""
        return min(default, len(self.data)) if self.n == 0 else self.n or len(self.data)

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Images [n, C_in, H, W], labels [n] and the paper's targets [n]."""
        return paper_batch(self.data, self.count(PAPER_N))

    def radii(self) -> Sequence[float]:
        """eps, by default the data set's usual linf radii.

        Raises:
            InputError: eps is missing for another norm.
        """
        if not self.eps and self.norm not in (None, "linf"):
            raise InputError(
                f"There are no usual radii for the norm {self.norm}, only for linf; give --eps."
            )
        return self.eps or usual_columns(self.data)


@dataclass(frozen=True)
class Measure:
    """How one attack is measured.

    Attributes:
        run: request -> rows.
        shows: what the rows say, in words.
        takes: the settings of a request that the attack has.
        protocols: those that the attack has.
        table: rows -> header and body for a terminal.
        n: number of images by default.
        norm: of the ball by default, None where there is none.
        seed: of random numbers by default.
    """

    run: Callable[[Request], Rows]
    shows: str
    takes: frozenset[str]
    protocols: tuple[str, ...]
    table: Callable[[Rows], tuple[list[str], list[list[Cell]]]]
    n: int = PAPER_N
    norm: Norm | None = None
    seed: int = 0


def usual_columns(data: ImageData | ImageStream) -> tuple[float, ...]:
    """The linf radii that a data set is measured at: those of Table 3 but for digits."""
    if data.name == "digits":
        return DIGITS_EPS
    return PAPER_EPS["mnist" if data.channels == 1 else "cifar10"]


def usual_eps(data: ImageData | ImageStream) -> float:
    """The linf radius that the recipes of a data set train for; of unknown ones 8/255."""
    if data.name == "digits":
        return 0.1
    return 0.3 if data.channels == 1 else 8 / 255


def measure(attack: str, request: Request) -> Rows:
    """Rows of a request under an attack, None where a figure is NaN, which JSON does not have.

    Args:
        attack: a key of `MEASURES`.

    Raises:
        InputError: the request sets something that the attack does not have, or that does not fit.
    """
    chosen = MEASURES[require_known_name("attack", attack, MEASURES)]
    for name in OPTIONS - chosen.takes:
        if getattr(request, name) is not None:
            options = ", ".join(_option(each) for each in sorted(chosen.takes))
            raise InputError(f"--attack {attack} has no {_option(name)}; it has {options}.")
    require_one_of(f"--protocol of --attack {attack}", request.protocol, chosen.protocols)
    rows = chosen.run(request)
    return [
        {name: None if value != value else value for name, value in row.items()} for row in rows
    ]


def settings_used(attack: str, request: Request) -> dict[str, Any]:
    """Norm, step size, seed and the like as `measure` takes them; None where there is none."""
    chosen = MEASURES[attack]
    step_size: float | str | None = request.step_size
    if step_size is None and "step_size" in chosen.takes:
        in_linf = chosen.norm == "linf" and request.norm in (None, "linf")
        in_ball = PAPER_STEP_SIZE if in_linf else "2.5 eps / steps"
        step_size = "eps / sqrt(steps)" if attack in CORRUPTIONS else in_ball
    seed = chosen.seed if request.seed is None else request.seed
    used = {"norm": request.norm or chosen.norm, "step_size": step_size, "seed": seed}
    if attack == "pgd" and not PROTOCOLS[request.protocol].paper:
        used["step_size"] = None
    if request.samples is not None:
        used["samples"] = request.samples
    if attack == "aai" and request.protocol == "best":
        used |= {"step_size": None, "k": request.k or PAPER_K}
    elif attack == "aai":
        used |= {"kind": request.kind or "topk", "k": request.k or PAPER_K}
        used["hinge"] = request.hinge or 0.0
    return used


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _pgd(request: Request) -> Rows:
    images: tuple[Any, ...] = request.batch()[:2] if isinstance(request.data, ImageData) else ()
    if not images:  # a stream is read batch by batch
        data, n = request.data, request.count(PAPER_N)
        images = (data.subset(paper_selection(len(data), n, num_classes=data.num_classes)[0]),)
    return sweep(
        request.model,
        *images,
        eps=request.radii(),
        steps=request.steps,
        protocol=request.protocol,
        norm=request.norm or "linf",
        step_size=request.step_size,
        batch_size=request.batch_size,
        seed=request.seed or 0,
        samples=request.samples,
        state=request.state,
    )


def _aai(request: Request) -> Rows:
    """Tables 2, A4 and A5; for linf the starts are the paper's unless there is a seed."""
    interpreter = interpreter_named(request.interpreter or "cam", class_wise=True)(request.model)
    images, labels, _ = request.batch()
    norm = request.norm or "linf"
    noise = None
    if norm == "linf" and request.seed is None:
        n_test, classes = len(request.data), request.data.num_classes
        noise = paper_noise(n_test, len(images), images.shape[1:], num_classes=classes)
    sweep_maps = partial(
        aai_sweep,
        step_size=request.step_size,
        kind=request.kind or "topk",
        # The paper's tables hold no prediction; a hinge asks for it to be held.
        hinge=request.hinge or 0.0,
        keep="best" if request.hinge else "last",
    )
    if request.protocol == "best":
        for name in BEST_CHOOSES:
            if getattr(request, name) is not None:
                raise InputError(
                    f"--protocol best of --attack aai runs several attacks, so {_option(name)} has "
                    "no meaning there; leave it out."
                )
        sweep_maps = partial(aai_best_sweep)
    rows: list[Mapping[str, Any]] = []
    for steps in request.steps or PAPER_STEPS:
        rows += sweep_maps(
            request.model,
            interpreter,
            images,
            labels,
            eps=request.radii(),
            steps=steps,
            k=request.k or PAPER_K,
            norm=norm,
            noise=noise,
            batch_size=request.batch_size,
            seed=request.seed or 0,
        )
    return rows


def _isa(request: Request) -> Rows:
    """Table 1: a row for each norm and set of classes."""
    if request.norm == "linf":
        raise InputError(
            "With --attack isa, --norm is that of the discrepancy and must be l1 or l2, got linf."
        )
    interpreter = request.interpreter or "cam"
    classes = CLASS_SETS if interpreter != "repr" else ("2-class",)
    return [
        isa_row(
            request.model,
            request.data,
            interpreter,
            norm,
            each,
            n=request.count(ISA_N),
            protocol="best" if request.protocol == "best" else "paper",
            batch_size=request.batch_size,
            seed=ISA_SEED if request.seed is None else request.seed,
        )
        for norm in ("l1", "l2")
        if request.norm in (None, norm)
        for each in (classes if request.classes is None else CLASS_SETS)
        if request.classes in (None, each)
    ]


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


def _columns(names: Sequence[str], rows: Rows) -> tuple[list[str], list[list[Cell]]]:
    """The fields `names` of the rows as a table; "-" where there is no figure."""

    def cell(name: str, row: Mapping[str, Any]) -> Cell:
        value: Cell | None = row[name]
        if value is None:
            return "-"
        return format_eps(float(value)) + mark(row) if name == "eps" else value

    body = [[cell(name, row) for name in names] for row in rows]
    return [name.replace("_", " ") for name in names], body


_BALL = frozenset({"eps", "steps", "step_size", "seed"})
MEASURES: dict[str, Measure] = {
    "pgd": Measure(
        _pgd,
        "accuracy",
        _BALL | {"norm", "samples"},
        tuple(PROTOCOLS),
        accuracy_table,
        norm="linf",
    ),
    "aai": Measure(
        _aai,
        "Kendall's tau and top-k intersection of maps",
        _BALL | {"norm", "interpreter", "kind", "k", "hinge"},
        ("paper", "best"),
        partial(_columns, ("eps", "steps", "kendall_tau", "topk_intersection", "n_unchanged")),
        norm="linf",
        seed=PAPER_SEED,
    ),
    "isa": Measure(
        _isa,
        "NDS and NSL",
        frozenset({"norm", "interpreter", "classes", "seed"}),
        ("paper", "best"),
        partial(_columns, ("interpreter", "norm", "classes", "nds", "nsl", "n")),
        n=ISA_N,
        seed=ISA_SEED,
    ),
    **{
        name: Measure(
            partial(_corruption, name),
            "accuracy",
            _BALL - {"step_size"} if name == "jpeg-l1" else _BALL,
            ("paper", "best"),
            accuracy_table,
        )
        for name in CORRUPTIONS
    },
}
"""Name on the command line -> how it is measured."""

OPTIONS = frozenset[str]().union(*(each.takes for each in MEASURES.values()))
"""The settings of a request that some attack does not have."""
