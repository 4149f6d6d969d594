"""Recipes: training runs by name, `<family>-<network>-<method>`, or in a TOML file of your own."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import torch

from .. import data, models
from .._utils import processes
from .._utils.errors import InputError
from .._utils.keywords import reject_unknown
from .._utils.require import (
    number_in,
    require_number,
    require_one_of,
    require_whole,
)
from ..attacks.outputs import Precision
from ..data import ImageData, ImageStream, MixedData
from ..data.dataset import Indices
from ..data.load import known_name
from ..data.stream import Usual
from ..interpreters.registry import CLASS_WISE, interpreter_named
from ..models import GapClassifier, PlainClassifier
from ..models.names import is_function, is_source
from ..models.sources import require_logits
from ..ops.pgd_step import Norm
from .config import Outer, TrainConfig
from .families import read_toml, settings_of
from .methods import Inner, method
from .trainer import Trainer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run. Section 5 and appendix B of the paper give the values of its networks.

    Attributes:
        name: name of the recipe.
        description: one line.
        method: one of `fastinterp.training.METHODS`.
        dataset: a name that `fastinterp.data.load` takes.
        model: small, pool or wresnet; or timm:NAME, torchvision:NAME, or package.module:function,
            which only `overrides` and the command line may name, see `fastinterp.models`.
        num_classes: of such a network, 0 for those of the data set.
        mean, std, weights, arguments: of such a network, see `fastinterp.models.from_source`; empty
            for its defaults. A classifier for other classes is not taken from the weights.
        epochs: number of epochs.
        batch_size: images in a step.
        lr: learning rate.
        optimizer: adam, adamw or sgd.
        scheduler: cosine or triangle; empty for a constant learning rate, or lr_milestones.
        weight_decay, clip_grad, label_smoothing, ema, awp: see `TrainConfig`.
        lr_milestones, eps, steps, step_size, random_start, norm, precision, outer_precision: see
            `TrainConfig`.
        eps_schedule: (start, end) as in `TrainConfig`; empty for a constant eps.
        gamma: weight of the regulariser; None takes the method's default.
        inner: what x' maximises in the Int family, discrepancy or cross-entropy; see `IntTrainer`.
        interpreter: whose maps the Int family compares, by its name in
            `fastinterp.interpreters.registry`; see `IntTrainer` on gamma.
        seed: determines the initial weights, the order of the images and the random starts.
        train_images: number of training images, 0 for all that are not held out.
        val_images: number of images held out, the first of the training split; of folders, drawn
            at random from all classes.
        allow_partial: train on a data set of which some files are missing (CIFAR-10 only).
        augment: "crop-flip" changes images in memory at random, see `Trainer.fit`; empty does not.
        extra: an .npz file of generated images, see `fastinterp.data.mix`; empty for none.
        extra_share: of each batch, the share of those images.
        transform: of images in folders, which are streamed; see `fastinterp.data.stream`.
        workers: processes that read these.
    """

    name: str
    description: str = ""
    method: str
    dataset: str
    model: str = "small"
    num_classes: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    weights: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    epochs: int
    batch_size: int = 50
    lr: float = 1e-4
    lr_milestones: tuple[int, ...] = ()
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: float = 0.0
    scheduler: Literal["", "cosine", "triangle"] = ""
    clip_grad: float | None = None
    label_smoothing: float = 0.0
    ema: float | None = None
    awp: float = 0.0
    eps: float = 0.3
    steps: int = 40
    step_size: float | None = None
    random_start: bool = True
    eps_schedule: tuple[int, ...] = ()
    gamma: float | None = None
    inner: Inner = "discrepancy"
    interpreter: str = "cam"
    precision: Precision = "float32"
    outer_precision: Outer = "float32"
    norm: Norm = "linf"
    seed: int = 0
    train_images: int = 0
    val_images: int = 0
    allow_partial: bool = False
    augment: Literal["", "crop-flip"] = ""
    extra: str = ""
    extra_share: float = 0.7
    transform: Usual = "whole"
    workers: int = 0


Data = ImageData | ImageStream | MixedData
OF_SOURCES = ("mean", "std", "weights", "arguments")
SHARED = [f.name for f in fields(TrainConfig) if f.name in {g.name for g in fields(Recipe)}]


class Trained(NamedTuple):
    """The result of `run_recipe`: the network and a row for each epoch (see `Trainer.fit`)."""

    model: GapClassifier | PlainClassifier
    history: list[dict[str, Any]]


def load_recipe(
    name_or_path: str | Path, overrides: Mapping[str, Any] | Iterable[str] = ()
) -> Recipe:
    """Make a recipe from the parts of its name, or read its file.

    A name is <family>-<network>-<method>, such as mnist-small-int; without the network it means the
    family's default. A file may say `base = "other"`, a recipe's name or the path of a file beside
    it, and give only what differs. Numbers may be fractions in quotes, such as "8/255".

    Args:
        name_or_path: a recipe's name, or the path of a TOML file.
        overrides: values that replace those: a mapping, or strings "key=value".

    Raises:
        InputError: there is no such recipe, the file is no TOML, a key is unknown, or a value is of
            the wrong kind.
    """
    table = _table(str(name_or_path), None, ())
    pairs = overrides if isinstance(overrides, Mapping) else dict(map(_split, overrides))
    reject_unknown("A recipe", pairs, KEYS)
    table |= pairs
    missing = [f.name for f in fields(Recipe) if f.name not in table and _is_needed(f)]
    if missing:
        raise InputError(f"The recipe {name_or_path} does not set {missing[0]}.")
    return Recipe(**{key: _convert(key, value) for key, value in table.items()})


def _is_needed(one: Field[Any]) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def run_recipe(
    recipe: Recipe | str | Path,
    data_dir: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    *,
    device: torch.device | str | None = None,
    progress: bool = True,
    download: bool = False,
) -> Trained:
    """Train by a recipe.

    Args:
        recipe: a recipe, its name, or the path of its file.
        data_dir: the folder that holds the data set; digits needs none.
        out: folder for checkpoints, history and the network; None writes nothing.
        resume: continue the run in `out`.
        device: by default a CUDA GPU if torch sees one, else the CPU.
        progress: show a bar.
        download: let torchvision download the data set if it is missing.

    Raises:
        InputError: the recipe, the data or `out` cannot be used (see `Trainer.fit`).
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    processes.join()
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    train, val = training_data(recipe, data_dir, download)
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
        augment=recipe.augment or None,
    )
    trained = trainer.model.eval()
    assert isinstance(trained, (GapClassifier, PlainClassifier))  # as make_trainer built it
    return Trained(trained, history)


def make_trainer(recipe: Recipe, train: Data, device: torch.device | str) -> Trainer:
    """A trainer with a recipe's settings and a network with its initial weights."""
    make = interpreter_named(recipe.interpreter, class_wise=True)
    interpreter = None if recipe.interpreter == "cam" else make
    chosen = method(recipe.method, recipe.gamma, inner=recipe.inner, interpreter=interpreter)
    settings = {name: getattr(recipe, name) for name in SHARED}
    settings["eps_schedule"] = recipe.eps_schedule or None
    settings["scheduler"] = recipe.scheduler or None
    return Trainer(_network(recipe, train), chosen, TrainConfig(**settings, device=device))


def _network(recipe: Recipe, train: Data) -> GapClassifier | PlainClassifier:
    channels, classes = train.channels, recipe.num_classes or train.num_classes
    of_sources = {key: getattr(recipe, key) or None for key in OF_SOURCES}
    if is_source(recipe.model):
        model = models.from_source(
            recipe.model, classes, channels, **of_sources, seed=recipe.seed, new_classifier=True
        )
        require_logits(model, (train.images if isinstance(train, MixedData) else train).float([0]))
        return model
    if recipe.num_classes or any(of_sources.values()):
        raise InputError(
            "num_classes, mean, std, weights and arguments are for networks such as "
            f"timm:resnet18, not for {recipe.model}."
        )
    config = {"name": recipe.model, "in_channels": channels, "num_classes": classes}
    return models.build(config, seed=recipe.seed)


def training_data(
    recipe: Recipe, data_dir: str | Path | None, download: bool = False
) -> tuple[Data, Data | None]:
    """The images that a recipe trains on, and those that it holds out, if any.

    Raises:
        InputError: the data set is missing, or too small for the recipe.
    """
    name = known_name(recipe.dataset)
    whole: ImageData | ImageStream
    plain: ImageData | ImageStream  # without random changes
    if name in data.FOLDERS:
        kind = recipe.transform
        whole = data.stream(name, data_dir, "train", kind, recipe.workers)
        plain = whole
        if kind == "random-crop":
            plain = data.stream(name, data_dir, "train", "center-crop", recipe.workers)
    else:
        partial = recipe.allow_partial
        whole = data.load(name, data_dir, "train", allow_partial=partial, download=download)
        plain = whole
    held_out = recipe.val_images
    end = held_out + recipe.train_images if recipe.train_images else len(whole)
    if not held_out < end <= len(whole):
        raise InputError(
            f"{recipe.dataset} has {len(whole)} training images, too few for {recipe.val_images} "
            f"to validate and {recipe.train_images or 'some'} to train; lower val_images or "
            "train_images."
        )
    first: Indices = slice(0, held_out)
    rest: Indices = slice(held_out, end)
    if name in data.FOLDERS:  # whose images are sorted by class
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
        first, rest = order[first], order[rest]
    val = plain.subset(first) if held_out else None
    train = whole.subset(rest)
    if not recipe.extra:
        return train, val
    if not isinstance(train, ImageData):
        raise InputError(f"extra is for images in memory, but {recipe.dataset} is streamed.")
    return data.mix(train, recipe.extra, recipe.extra_share), val


def _table(name: str, beside: Path | None, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The settings of a recipe, given by its name or its file's path.

    Args:
        beside: the file whose base this is.
        seen: the files that this is the base of, to find circles.
    """
    if not name.endswith(".toml"):
        settings = settings_of(name)
        if beside is not None:
            _require_no_function(beside, settings)
        return settings
    path = Path(name)
    if beside is not None and (beside.parent / name).is_file():
        path = beside.parent / name
    if not path.is_file():
        raise InputError(f"There is no recipe file {name}.")
    if path in seen:
        raise InputError(f"The recipe {path} is its own base.")
    table = read_toml(path)
    base = table.pop("base", None)
    reject_unknown(f"A recipe ({path.name})", table, KEYS)
    _require_no_function(path, table)
    table["name"] = path.name.removesuffix(".toml")
    if base is None:
        return table
    if not isinstance(base, str):
        raise InputError(f"{path.name}: base must be the name of a recipe, got {base!r}.")
    return _table(base, path, (*seen, path)) | table


def _require_no_function(path: Path, table: Mapping[str, Any]) -> None:
    """Raise if a recipe's file names code to run."""
    model = table.get("model")
    if is_function(model):
        raise InputError(
            f"{path.name} names the function {model}, which a file may not run; if you trust it, "
            f"leave it out there and name it yourself, with --set model={model}."
        )


def _split(text: str) -> tuple[str, Any]:
    """An override "key=value", whose value is TOML or text without quotes."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise InputError(f"An override has the form key=value, got {text!r}.")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


KINDS = get_type_hints(Recipe)
KEYS = [name for name in KINDS if name != "name"]


def _convert(key: str, value: Any) -> Any:
    """A value as its field wants it."""
    kind = KINDS[key]
    if get_origin(kind) is Literal:
        return require_one_of(key, value, get_args(kind))
    if key == "interpreter":
        return require_one_of(key, value, CLASS_WISE)
    if kind in (str, bool):
        if not isinstance(value, kind):
            what = "text" if kind is str else "true or false"
            raise InputError(f"{key} must be {what}, got {value!r}.")
        return value
    if kind in (tuple[int, ...], tuple[float, ...]):
        if isinstance(value, str):  # "2000, 10000" and, for none, ""
            value = _split(f"{key}=[{value}]")[1]
        if not isinstance(value, (list, tuple)):
            what = "whole numbers" if kind == tuple[int, ...] else "numbers"
            raise InputError(f"{key} must be a list of {what}, got {value!r}.")
        require = require_whole if kind == tuple[int, ...] else require_number
        return tuple(require(key, one) for one in value)
    if kind == dict[str, Any]:
        if not isinstance(value, dict):
            raise InputError(f'{key} must be a table such as {{a = 1, b = "x"}}, got {value!r}.')
        return value
    if kind is int:
        return require_whole(key, value)
    if value is None and kind is not float:
        return None
    try:
        return require_number(key, number_in(value) if isinstance(value, str) else value)
    except (ValueError, ArithmeticError) as error:
        raise InputError(
            f'{key} must be a number or a fraction such as "8/255", got {value!r}.'
        ) from error
