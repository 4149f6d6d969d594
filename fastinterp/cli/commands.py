"""What each command does with its parsed arguments. A command returns its exit code."""

from __future__ import annotations

import json
import time
import warnings
from argparse import Namespace
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import data, evaluation, models, training
from .._utils import processes
from .._utils.device import usable_device
from .._utils.errors import InputError
from .._utils.files import require_writable, write_json
from .._version import __version__
from ..data import ImageData, ImageStream
from ..evaluation.by_attack import MEASURES, Request, measure, settings_used, usual_eps
from ..evaluation.pictures import picture_path
from ..evaluation.tables import text_table, write_rows
from ..interpreters.registry import interpreter_named
from ..models.names import is_source
from ..models.sources import Network, recorded, require_logits
from ..ops import backend
from ..training.families import families, recipe_name

Images = ImageData | ImageStream


def demo(args: Namespace) -> int:
    from .demo import run_demo

    run_demo(Path(args.out), _device(args))
    return 0


def doctor(args: Namespace) -> int:
    """Exit code 1 if fastinterp cannot be used here."""
    from .doctor import examine

    found = examine()
    print(found.text())
    return 0 if found.usable else 1


def train(args: Namespace) -> int:
    if args.list:
        lines = [
            (each.pattern, ", ".join(each.networks), each.title) for each in families().values()
        ]
        print(text_table(("recipe", "networks", "data"), lines))
        print("\nWithout NETWORK, as in mnist-int, the first network is trained. METHOD is one of:")
        print("\n".join(f"  {name:14} {row.title}" for name, row in training.METHODS.items()))
        return 0
    recipe = training.load_recipe(_recipe_name(args), [*args.set, *_of_source(args)])
    out = Path(args.out or Path("runs") / recipe.name.replace(":", "-"))
    if out.exists() and not out.is_dir():
        raise InputError(f"--out names a file, {out}; give the name of a folder.")
    done = training.run_recipe(
        recipe, args.data_dir, out, args.resume, device=_device(args), download=args.download
    )
    last = {key: value for key, value in done.history[-1].items() if value is not None}
    print(text_table(list(last), [list(last.values())]))
    print(f"written: {out / 'model.safetensors'}")
    return 0


def _recipe_name(args: Namespace) -> str:
    """The recipe's name or file, or the name made from --dataset, --model and --method."""
    parts = [args.dataset, args.model, args.method]
    if args.recipe is not None:
        if any(parts):
            raise InputError(
                "train takes a recipe or --dataset, --model and --method; leave one of them out."
            )
        return str(args.recipe)
    if args.dataset is not None:
        return recipe_name(args.dataset, args.model, args.method or "int")
    hint = "`fastinterp train --list` lists them."
    for word in args.set:
        if "=" not in word:
            hint = f"{word!r} was read as a setting, so write the recipe before the options."
    raise InputError(f"train needs a recipe or --dataset; {hint}")


def _of_source(args: Namespace) -> list[str]:
    """The options of a network by name as settings of a recipe, in TOML."""
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in args.arguments)
    given = {
        "num_classes": args.num_classes,
        "mean": args.mean,
        "std": args.std,
        "weights": args.weights and json.dumps(args.weights),
        "arguments": table and f"{{{table}}}",
    }
    return [f"{key}={value}" for key, value in given.items() if value]


def evaluate(args: Namespace) -> int:
    _require_json(args.out)
    if args.threat_model is not None:
        _choose_threat_model(args)
    model, images = _model_and_data(args)
    settings = {field.name: getattr(args, field.name) for field in fields(Request)[2:-1]}
    state = None if args.out is None else Path(args.out).with_suffix(".part")
    request = Request(model, images, state=state, **settings)
    kind = MEASURES[args.attack]
    start = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", evaluation.UnreliableFigures)  # the table says so
        rows = measure(args.attack, request)
    print(
        f"{args.model}: {kind.shows} under {args.attack} on {request.count(kind.n)} images of "
        f"{args.dataset}, protocol {args.protocol}"
    )
    print("\n".join([text_table(*kind.table(rows)), *evaluation.footnotes(rows)]))
    if args.out is not None and processes.rank() == 0:
        about = {
            "dataset": args.dataset,
            "attack": args.attack,
            **settings_used(args.attack, request),
            "seconds": round(time.monotonic() - start, 1),
            "versions": _versions(model),
        }
        write_rows(args.out, rows, model=args.model, protocol=args.protocol, **about)
        print(f"written: {args.out}")
    return 0


def _choose_threat_model(args: Namespace) -> None:
    """Set what RobustBench's threat model sets, if nothing else was asked for."""
    threat = evaluation.THREAT_MODELS[args.threat_model]
    if args.dataset != threat.dataset or args.attack != "pgd":
        raise InputError(
            f"--threat-model {args.threat_model} is for --dataset {threat.dataset} and --attack "
            f"pgd, got {args.dataset} and {args.attack}."
        )
    if any(each is not None for each in (args.eps, args.steps, args.step_size, args.norm)):
        raise InputError(
            "--threat-model says which eps, steps and norm are measured; leave --eps, --steps, "
            "--step-size and --norm out."
        )
    args.eps, args.norm = [0.0, threat.eps], threat.norm
    args.protocol, args.n = "autoattack", None


def explain(args: Namespace) -> int:
    model, images = _model_and_data(args)
    require_writable(picture_path(args.out))
    if args.indices is None:
        chosen, _ = evaluation.paper_selection(len(images), args.n, num_classes=images.num_classes)
    else:
        chosen = torch.tensor(args.indices)
        if chosen.max() >= len(images):
            raise InputError(
                f"--indices must lie in 0..{len(images) - 1} for the test images of {images.name}, "
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
    evaluation.draw_explanations(found, args.out, images.classes)
    aimed = found.targets[:, None]
    columns = (
        chosen.tolist(),
        [images.classes[label] for label in found.labels.tolist()],
        [images.classes[target] for target in found.targets.tolist()],
        [f"{p:.3f}" for p in found.probabilities.gather(1, aimed)[:, 0].tolist()],
        [f"{p:.3f}" for p in found.probabilities_adv.gather(1, aimed)[:, 0].tolist()],
    )
    header = ("image", "class", "target", "p(target) before", "p(target) after")
    print(text_table(header, list(zip(*columns, strict=True))))
    print(f"written: {args.out}")
    return 0


def audit(args: Namespace) -> int:
    """Exit code 1 if a check shows signs of obfuscated gradients."""
    _require_json(args.out)
    model, images = _model_and_data(args)
    other = None
    if args.transfer_from is not None:
        other = models.load(args.transfer_from, map_location=model.device)
        _require_fit(args.transfer_from, other, images)
    n = min(args.n, len(images))
    selected, _ = evaluation.paper_selection(len(images), n, num_classes=images.num_classes)
    eps = _eps(args, images)
    chosen = images.subset(selected)
    checks = evaluation.audit(
        model,
        *((chosen.float(), chosen.labels) if isinstance(chosen, ImageData) else (chosen,)),
        eps=eps,
        steps=args.steps,
        norm=args.norm,
        transfer_from=other,
        batch_size=args.batch_size,
    )
    print(f"{args.model}: checks for obfuscated gradients on {n} images of {args.dataset}")
    print(text_table(*evaluation.audit_table(checks)))
    print("\n".join(f"{check.name}: {check.sentence}" for check in checks))
    passed = all(check.passed is not False for check in checks)
    if args.out is not None and processes.rank() == 0:
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


def reproduce(args: Namespace) -> int:
    from .reproducing import run

    run(args, _device(args))
    return 0


def _targets(name: str, images: Images, chosen: Tensor) -> Tensor | None:
    """The targets [N] of `--target`; None for the most probable wrong class."""
    if name == "runner-up":
        return None
    labels = images.labels[chosen.to(images.device)]
    classes = images.num_classes
    if name == "random":
        _, offsets = evaluation.paper_selection(len(images), len(chosen), num_classes=classes)
        return (labels + offsets.to(labels)) % classes
    known = {str(number): number for number in range(classes)}
    known |= {each: number for number, each in enumerate(images.classes)}
    if name not in known:
        shown = ", ".join(images.classes[:12]) + (", ..." if classes > 12 else "")
        raise InputError(f"--target must be runner-up, random or a class ({shown}), got {name!r}.")
    already = (labels == known[name]).nonzero().squeeze(1)
    if len(already):
        raise InputError(
            f"--target {name} is the true class of image {int(chosen[already[0]])}; choose another "
            "--target or other --indices."
        )
    return torch.full_like(labels, known[name])


def _eps(args: Namespace, images: Images) -> float:
    if args.eps is not None:
        return float(args.eps)
    if args.norm != "linf":
        raise InputError(f"--norm {args.norm} needs --eps, which has a default for linf only.")
    return usual_eps(images)


def _model_and_data(args: Namespace) -> tuple[Network, Images]:
    """The network, and the test images: those of a folder are read when they are needed."""
    device = _device(args)
    by_name = is_source(args.model) and not Path(args.model).exists()
    model: Network
    if not by_name:
        if any((args.num_classes, args.mean, args.std, args.weights, args.arguments)):
            raise InputError(
                "--num-classes, --mean, --std, --weights and --arguments are for networks such as "
                "timm:resnet18; a file says these itself, so leave them out."
            )
        model = models.load(args.model, map_location=device)
    images: Images
    if args.dataset in data.FOLDERS:
        images = data.stream(args.dataset, args.data_dir, "test", args.transform, args.workers)
    else:
        images = data.load(args.dataset, args.data_dir, "test", device, download=args.download)
    if by_name:
        model = _named(args, images).to(device).eval()
    _require_fit(args.model, model, images)
    return model, images


def _named(args: Namespace, images: Images) -> Network:
    if args.weights is None:
        raise InputError(
            f"{args.model} has random weights; give trained ones with --weights FILE.safetensors."
        )
    known = recorded(args.weights, args.model)
    return models.from_source(
        args.model,
        args.num_classes or known.get("num_classes", images.num_classes),
        known.get("in_channels", images.channels),
        args.mean,
        args.std,
        args.weights,
        arguments=dict(args.arguments) or None,
    )


def _require_fit(path: str, model: Network, images: Images) -> None:
    for what, takes, has in (
        ("input channels", model.in_channels, images.channels),
        ("classes", model.num_classes, images.num_classes),
    ):
        if takes not in (None, has):
            raise InputError(
                f"The network {path} has {takes} {what}, but {images.name} has {has}; use the data "
                "set that the network was trained on."
            )
    require_logits(model, images.float([0]))


def _require_json(out: str | None) -> None:
    """Raise unless results can be written to `--out`, if it is given."""
    if out is None:
        return
    if Path(out).suffix.lower() != ".json" and not Path(out).is_dir():
        raise InputError(f"--out must end in .json, got {out}.")
    require_writable(Path(out))


def _device(args: Namespace) -> torch.device:
    return usable_device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _versions(model: Network) -> dict[str, Any]:
    device = model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "fastinterp": __version__,
        "torch": torch.__version__,
        "backend": backend(device),
        "device": name,
    }
