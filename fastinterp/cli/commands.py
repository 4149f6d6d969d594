"""What the commands do, once their words are understood."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import data, evaluation, models, training
from .._utils.device import usable_device
from .._utils.errors import InputError
from .._utils.files import require_writable, write_json
from .._version import __version__
from ..data import ImageData
from ..evaluation.by_attack import MEASURES, Request, measure, settings_used, usual_eps
from ..evaluation.pictures import picture_path
from ..evaluation.tables import text_table, write_rows
from ..interpreters.registry import interpreter_named
from ..models import GapClassifier
from ..ops import backend

Words = argparse.Namespace


def demo(args: Words) -> int:
    """Train and compare Normal and Int on digits."""
    from .demo import run_demo

    run_demo(Path(args.out), _device(args))
    return 0


def doctor(args: Words) -> int:
    """Print what works here; 1 where fastinterp cannot be used."""
    from .doctor import examine

    found = examine()
    print(found.text())
    return 0 if found.usable else 1


def train(args: Words) -> int:
    """Train by a recipe, and say where the network lies."""
    if args.list:
        lines = [(name, training.load_recipe(name).description) for name in training.list_recipes()]
        print(text_table(("recipe", "what it trains"), lines))
        return 0
    if args.recipe is None:
        taken = next((word for word in args.set if "=" not in word), None)
        hint = (
            "`fastinterp train --list` shows them."
            if taken is None
            else (f"{taken!r} was taken for a setting; the recipe stands before the options.")
        )
        raise InputError(f"train needs a recipe; {hint}")
    recipe = training.load_recipe(args.recipe, args.set)
    out = Path(args.out or Path("runs") / recipe.name)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out names a file, {out}; give the name of a folder.")
    done = training.run_recipe(recipe, args.data_dir, out, args.resume, device=_device(args))
    last = {key: value for key, value in done.history[-1].items() if value is not None}
    print(text_table(list(last), [list(last.values())]))
    print(f"network: {out / 'model.safetensors'}")
    return 0


def evaluate(args: Words) -> int:
    """Measure a network under attack, print the table, write it as JSON."""
    _require_json(args.out)
    model, images = _model_and_data(args)
    request = Request(
        model,
        images,
        args.n,
        args.protocol,
        args.batch_size,
        eps=args.eps,
        steps=args.steps,
        step_size=args.step_size,
        norm=args.norm,
        interpreter=args.interpreter,
        classes=args.classes,
        seed=args.seed,
        kind=args.kind,
        k=args.k,
        hinge=args.hinge,
    )
    kind = MEASURES[args.attack]
    began = time.monotonic()
    rows = measure(args.attack, request)
    print(
        f"{args.model}: {kind.shows} under {args.attack} on {request.count(kind.n)} images of "
        f"{args.dataset}, protocol {args.protocol}"
    )
    print(text_table(*kind.table(rows)))
    if args.out is not None:
        about = {
            "dataset": args.dataset,
            "attack": args.attack,
            **settings_used(args.attack, request),
            "seconds": round(time.monotonic() - began, 1),
            "versions": _versions(model),
        }
        write_rows(args.out, rows, model=args.model, protocol=args.protocol, **about)
        print(f"written: {args.out}")
    return 0


def explain(args: Words) -> int:
    """Draw the maps of some images, clean and attacked."""
    model, images = _model_and_data(args)
    require_writable(picture_path(args.out))
    if args.indices is None:
        chosen, _ = evaluation.paper_selection(len(images), args.n, num_classes=images.num_classes)
    else:
        chosen = torch.tensor(args.indices)
        if chosen.max() >= len(images):
            raise InputError(
                f"--indices: {images.name}'s test images are 0..{len(images) - 1}, "
                f"got {int(chosen.max())}."
            )
    picked = images.subset(chosen)
    eps = _eps(args, images)
    found = evaluation.explain(
        model,
        picked.float(),
        picked.labels,
        eps=eps,
        steps=args.steps,
        step_size=args.step_size,
        norm=args.norm,
        targets=_targets(args.target, images, chosen),
        interpreter=interpreter_named(args.interpreter, class_wise=True)(model),
    )
    found.save(args.out, images.classes)
    lines = [
        (position, images.classes[label], images.classes[target], f"{before:.3f}", f"{after:.3f}")
        for position, label, target, before, after in zip(
            chosen.tolist(),
            found.labels.tolist(),
            found.targets.tolist(),
            found.probabilities.gather(1, found.targets[:, None])[:, 0].tolist(),
            found.probabilities_adv.gather(1, found.targets[:, None])[:, 0].tolist(),
            strict=True,
        )
    ]
    print(text_table(("image", "true", "target", "p(target), clean", "attacked"), lines))
    print(f"written: {args.out}")
    return 0


def audit(args: Words) -> int:
    """Look for signs of obfuscated gradients; 1 where there is one."""
    _require_json(args.out)
    model, images = _model_and_data(args)
    other = None
    if args.transfer_from is not None:
        other = models.load(args.transfer_from, map_location=model.device)
        _require_fit(args.transfer_from, other, args.dataset, images)
    n = min(args.n, len(images))
    selected, _ = evaluation.paper_selection(len(images), n, num_classes=images.num_classes)
    eps = _eps(args, images)
    checks = evaluation.audit(
        model,
        images.float(selected),
        images.labels[selected],
        eps=eps,
        steps=args.steps,
        norm=args.norm,
        transfer_from=other,
        batch_size=args.batch_size,
    )
    print(f"{args.model}: signs of obfuscated gradients, {n} images of {args.dataset}")
    print(text_table(*evaluation.audit_table(checks)))
    print("\n".join(f"{check.name}: {check.sentence}" for check in checks))
    passed = all(check.passed is not False for check in checks)
    if args.out is not None:
        about = {
            "model": args.model,
            "dataset": args.dataset,
            "eps": eps,
            "norm": args.norm,
            "n": n,
            "transfer_from": args.transfer_from,
            "passed": passed,
            "checks": [check.as_json() for check in checks],
            "versions": _versions(model),
        }
        write_json(args.out, about)
        print(f"written: {args.out}")
    return 0 if passed else 1


def reproduce(args: Words) -> int:
    """Measure a table or figure of the paper again."""
    from .reproducing import run

    run(args, _device(args))
    return 0


def _targets(wish: str, images: ImageData, chosen: Tensor) -> Tensor | None:
    """The targets of `--target`; None leaves the likeliest wrong class to `explain`."""
    if wish == "runner-up":
        return None
    labels = images.labels[chosen.to(images.labels.device)]
    if wish == "random":
        n, classes = len(chosen), images.num_classes
        _, offsets = evaluation.paper_selection(len(images), n, num_classes=classes)
        return (labels + offsets.to(labels)) % classes
    names = dict(zip(images.classes, range(images.num_classes), strict=True))
    numbers = {str(number): number for number in range(images.num_classes)}
    target = (numbers | names).get(wish)
    if target is None:
        raise InputError(
            f"--target must be runner-up, random or a class ({', '.join(images.classes[:12])}"
            f"{', ...' if len(images.classes) > 12 else ''}), got {wish!r}."
        )
    hit = (labels == target).nonzero().squeeze(1)
    if len(hit):
        raise InputError(
            f"image {int(chosen[hit[0]])} is of the target class {wish!r} itself; choose another "
            "--target or other --indices."
        )
    return torch.full_like(labels, target)


def _eps(args: Words, images: ImageData) -> float:
    """The radius asked for, or that of the data set's recipes, which is one in linf."""
    if args.eps is not None:
        return float(args.eps)
    if args.norm != "linf":
        raise InputError(f"--norm {args.norm} needs --eps; only linf has a usual radius.")
    return usual_eps(images)


def _model_and_data(args: Words) -> tuple[GapClassifier, ImageData]:
    """The network and the test split, on one device, if they fit together."""
    device = _device(args)
    model = models.load(args.model, map_location=device)
    images = data.load(args.dataset, args.data_dir, "test", device)
    _require_fit(args.model, model, args.dataset, images)
    return model, images


def _require_fit(path: str, model: GapClassifier, dataset: str, images: ImageData) -> None:
    config = model.config or {}
    for what, takes, has in (
        ("input channels", config.get("in_channels"), images.images.shape[1]),
        ("classes", model.num_classes, images.num_classes),
    ):
        if takes not in (None, has):
            raise InputError(
                f"{path} takes {what}: {takes}, but {dataset} has {has}; "
                "choose the data set that it was trained on."
            )


def _require_json(out: str | None) -> None:
    """Raise unless a file of results, if one is asked for, is JSON and can be written."""
    if out is None:
        return
    if Path(out).suffix.lower() != ".json" and not Path(out).is_dir():
        raise InputError(f"--out must end in .json, got {out}.")
    require_writable(Path(out))


def _device(args: Words) -> torch.device:
    return usable_device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _versions(model: GapClassifier) -> dict[str, Any]:
    device = model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "fastinterp": __version__,
        "torch": torch.__version__,
        "backend": backend(device),
        "device": name,
    }
