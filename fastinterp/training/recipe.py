"""Recipes: a training run in a TOML file. One for each network of the paper, and short ones."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch

from .. import data, models
from .._utils.errors import InputError
from .._utils.files import read_file
from .._utils.require import number_in
from ..attacks.outputs import Precision
from ..data import ImageData
from ..interpreters.registry import CLASS_WISE, interpreter_named
from ..models import GapClassifier
from ..ops.pgd_step import Norm
from .methods import Inner, Method, method
from .trainer import Trainer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


InterpreterName = str

# What other programs call a setting.
ELSEWHERE = {
    "epsilon": "eps",
    "learning_rate": "lr",
    "milestones": "lr_milestones",
    "alpha": "step_size",
    "iterations": "steps",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run. Section 5 and appendix B of the paper give the values of its networks.

    Attributes:
        name: of the recipe.
        description: one line.
        method: one of `fastinterp.training.METHODS`.
        dataset: as `fastinterp.data.load` names it.
        model: small, pool or wresnet.
        epochs, batch_size: how long, and images a step.
        lr, lr_milestones: Adam's learning rate; it falls to a tenth after each of these steps.
        eps, steps, step_size, random_start: the inner loop; see `IntTrainer`.
        eps_schedule: eps is 0 up to the first of these steps and whole from the second on; empty:
            constant.
        gamma: weight of the regulariser; None takes the method's own.
        inner: what x' maximises in the Int family, discrepancy or cross-entropy; see `IntTrainer`.
        interpreter: whose maps the Int family compares, by its name in
            `fastinterp.interpreters.registry`; see `IntTrainer` on gamma.
        precision: float32, tf32 or bf16; see `IntTrainer`.
        norm: of the inner loop's ball, linf, l2 or l1.
        seed: of the network's first weights, the order of the images and the random starts.
        train_images: how many, 0 for all that are not held out.
        val_images: how many are held out, the first of the training split.
        allow_partial: train on a data set of which some files are missing (CIFAR-10 only).
    """

    name: str
    description: str = ""
    method: str
    dataset: str
    model: str = "small"
    epochs: int
    batch_size: int = 50
    lr: float = 1e-4
    lr_milestones: tuple[int, ...] = ()
    eps: float = 0.3
    steps: int = 40
    step_size: float | None = None
    random_start: bool = True
    eps_schedule: tuple[int, ...] = ()
    gamma: float | None = None
    inner: Inner = "discrepancy"
    interpreter: InterpreterName = "cam"
    precision: Precision = "float32"
    norm: Norm = "linf"
    seed: int = 0
    train_images: int = 0
    val_images: int = 0
    allow_partial: bool = False


class Trained(NamedTuple):
    """What `run_recipe` gives back: the network and a row an epoch (see `Trainer.fit`)."""

    model: GapClassifier
    history: list[dict[str, Any]]


def list_recipes() -> list[str]:
    """The names of the recipes that come with fastinterp, in order."""
    return sorted(path.name.removesuffix(".toml") for path in _folder() if path.suffix == ".toml")


def load_recipe(
    name_or_path: str | Path, overrides: Mapping[str, Any] | Iterable[str] = ()
) -> Recipe:
    """Read a recipe.

    A file may say `base = "other"`, a recipe's name or the path of a file beside it, and give only
    what differs. Numbers may be fractions in quotes, such as "8/255".

    Args:
        name_or_path: one of `list_recipes()`, or the path of a TOML file.
        overrides: values that replace the file's: a mapping, or strings "key=value".

    Raises:
        InputError: no such recipe, no TOML, an unknown key, or a value of the wrong kind.
    """
    path = _find(str(name_or_path))
    table = _read(path, ())
    pairs = overrides if isinstance(overrides, Mapping) else dict(map(_split, overrides))
    _require_known(pairs)
    table |= pairs
    missing = [f.name for f in fields(Recipe) if f.default is MISSING and f.name not in table]
    if missing:
        raise InputError(f"The recipe {path} does not set {missing[0]}.")
    return Recipe(**{key: _convert(key, value) for key, value in table.items()})


def run_recipe(
    recipe: Recipe | str | Path,
    data_dir: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    *,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Trained:
    """Train as a recipe says.

    Args:
        recipe: a recipe, its name, or the path of its file.
        data_dir: the folder that holds the data set; digits needs none.
        out: folder for checkpoints, history and the network; None writes nothing.
        resume: go on from what `out` holds.
        device: by default a CUDA GPU if torch sees one, else the CPU.
        progress: show a bar.

    Raises:
        InputError: the recipe, the data or `out` cannot be used (see `Trainer.fit`).
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    train, val = training_data(recipe, data_dir)
    trainer = make_trainer(recipe, train, device)
    history = trainer.fit(
        train,
        recipe.epochs,
        recipe.batch_size,
        val,
        out,
        resume,
        progress,
        info={"recipe": asdict(recipe)},
    )
    return Trained(trainer.model.eval(), history)


def make_trainer(recipe: Recipe, train: ImageData, device: torch.device | str) -> Trainer:
    """A trainer with a recipe's settings and a network with its first weights."""
    config = {
        "name": recipe.model,
        "in_channels": train.images.shape[1],
        "num_classes": train.num_classes,
    }
    return Trainer(
        models.build(config, seed=recipe.seed),
        _method(recipe),
        eps=recipe.eps,
        steps=recipe.steps,
        step_size=recipe.step_size,
        eps_schedule=recipe.eps_schedule or None,  # type: ignore[arg-type]
        random_start=recipe.random_start,
        seed=recipe.seed,
        lr=recipe.lr,
        lr_milestones=recipe.lr_milestones,
        device=device,
        precision=recipe.precision,
        norm=recipe.norm,
    )


def _method(recipe: Recipe) -> Method:
    make = interpreter_named(recipe.interpreter, class_wise=True)
    interpreter = None if recipe.interpreter == "cam" else make
    return method(recipe.method, recipe.gamma, inner=recipe.inner, interpreter=interpreter)


def training_data(
    recipe: Recipe, data_dir: str | Path | None
) -> tuple[ImageData, ImageData | None]:
    """What a recipe trains on, and what it holds out, if anything.

    Raises:
        InputError: the data set is not there, or too small for the recipe.
    """
    whole = data.load(recipe.dataset, data_dir, "train", allow_partial=recipe.allow_partial)
    held_out = recipe.val_images
    end = held_out + recipe.train_images if recipe.train_images else len(whole)
    if not held_out < end <= len(whole):
        raise InputError(
            f"{recipe.dataset} has {len(whole)} training images, too few for {recipe.val_images} "
            f"to validate and {recipe.train_images or 'some'} to train; lower val_images or "
            "train_images."
        )
    val = whole.subset(slice(0, held_out)) if held_out else None
    return whole.subset(slice(held_out, end)), val


def _folder() -> list[Path]:
    return [
        Path(str(entry)) for entry in files("fastinterp.training").joinpath("recipes").iterdir()
    ]


def _find(name: str) -> Path:
    """The file of a recipe's name or path."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"There is no recipe file {name}.")
        return path
    known = {path.name.removesuffix(".toml"): path for path in _folder()}
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`fastinterp train --list` shows them."
    raise InputError(f"There is no recipe {name!r}; {hint}")


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """A file's table over its base's."""
    if path in seen:
        raise InputError(f"The recipe {path} is its own base.")
    try:
        table = tomllib.loads(read_file(path).decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
    base = table.pop("base", None)
    _require_known(table, f" ({path.name} sets it)")
    table["name"] = path.name.removesuffix(".toml")
    if base is None:
        return table
    if not isinstance(base, str):
        raise InputError(f"{path.name}: base must be the name of a recipe, got {base!r}.")
    beside = path.parent / base
    parent = beside if base.endswith(".toml") and beside.is_file() else _find(base)
    return _read(parent, (*seen, path)) | table


def _split(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"An override has the form key=value, got {text!r}.")
    return key.strip(), value.strip()


def _require_known(table: Mapping[str, Any], where: str = "") -> None:
    known = [f.name for f in fields(Recipe) if f.name != "name"]
    for key in table:
        if key not in known:
            near = [ELSEWHERE[key]] if key in ELSEWHERE else get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
            raise InputError(f"A recipe has no setting {key!r}{where}; {hint}")


def _convert(key: str, value: Any) -> Any:
    """A value as its field wants it, from TOML or from the text of an override."""
    kind = str(next(f.type for f in fields(Recipe) if f.name == key))
    what, read = _KINDS[kind]
    try:
        return read(value)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{key} must be {what}, got {value!r}.") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _one_of(choices: Any) -> tuple[str, Any]:
    """The kind of a value that is one of a Literal's words."""

    def read(value: Any) -> Any:
        if value not in get_args(choices):
            raise ValueError
        return value

    return " or ".join(get_args(choices)), read


def _interpreter(value: Any) -> str:
    if value not in CLASS_WISE:
        raise ValueError
    return str(value)


def _whole(value: Any) -> int:
    if isinstance(value, (bool, float)):
        raise TypeError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return number_in(value) if isinstance(value, str) else float(value)


def _yes_or_no(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}[value.lower()]


def _wholes(value: Any) -> tuple[int, ...]:
    parts = value.strip("[]() ").split(",") if isinstance(value, str) else value
    return tuple(_whole(part) for part in parts if part != "")


_KINDS: dict[str, tuple[str, Any]] = {
    "str": ("text", _text),
    "InterpreterName": (f"one of {', '.join(CLASS_WISE)}", _interpreter),
    "Inner": _one_of(Inner),
    "Precision": _one_of(Precision),
    "Norm": _one_of(Norm),
    "int": ("a whole number", _whole),
    "float": ('a number or a fraction such as "8/255"', _number),
    "float | None": ('a number or a fraction such as "8/255"', _number),
    "bool": ("true or false", _yes_or_no),
    "tuple[int, ...]": ("a list of whole numbers", _wholes),
}
