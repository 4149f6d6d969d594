"""Training iterations: Int against its floor and eager programs, the methods, and growth."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.group import Entries, Group, Skipped
from benchmarks.timing import Thunk
from benchmarks.train_peers import (
    LR,
    Setting,
    clean_kept,
    convolutions_alone,
    release_structure,
)
from fastinterp.training import AdvTrainer, IntTrainer, TRADESTrainer, Trainer

FLOOR = "convolutions and ReLUs alone, channels_last"  # the faster layout, and the trainers' own
CONTIGUOUS = "convolutions and ReLUs alone, contiguous"
RELEASE = "release's structure, eager"
KEPT = "clean maps kept, eager"
FUSED = "fused"
BF16 = "fused, bf16 inner loop"

CPU_SETTINGS = {"MNIST Small": Setting()}
GPU_SETTINGS = {
    "MNIST Small": Setting(device="cuda"),
    "CIFAR WResnet": Setting(
        "wresnet", 128, 3, 32, steps=10, eps=8 / 255, step_size=2 / 255, device="cuda"
    ),
}
# A shorter inner loop, so that a whole plot takes a minute.
SHORT = Setting(steps=10)
GROWTH: dict[str, tuple[int, ...]] = {
    "batch": (10, 25, 50, 100, 200),
    "size": (28, 40, 56),
    "classes": (10, 30, 100, 300),
    "steps": (5, 10, 20, 40),
}
AXES = {"batch": "images in a batch", "size": "pixels a side", "classes": "classes",
        "steps": "inner steps"}  # fmt: skip


def all_groups(device: str) -> list[Group]:
    settings = CPU_SETTINGS if device == "cpu" else GPU_SETTINGS
    iterations = [_iteration(name, setting) for name, setting in settings.items()]
    return [*iterations, _methods(device), *_growth(replace(SHORT, device=device))]


def _iteration(name: str, setting: Setting) -> Group:
    return Group(
        section="one Int iteration",
        title=f"Int, {name}, batch {setting.batch}, {setting.steps} steps",
        entries=(FLOOR, CONTIGUOUS, RELEASE, KEPT, FUSED, *([BF16] if _takes_precision() else [])),
        build=partial(_int_entries, setting),
        baseline=RELEASE,
        floor=FLOOR,
        budget=45.0,
    )


def _int_entries(setting: Setting) -> Entries:
    made: Entries = {
        **floors(setting),
        RELEASE: release_structure(setting),
        KEPT: clean_kept(setting),
        FUSED: trainer_step(IntTrainer, setting),
    }
    if _takes_precision():
        made[BF16] = _bf16(setting)
    return made


def floors(setting: Setting) -> dict[str, Thunk]:
    """The convolutions of an iteration in both memory layouts."""
    return {
        FLOOR: convolutions_alone(setting, torch.channels_last),
        CONTIGUOUS: convolutions_alone(setting, torch.contiguous_format),
    }


def _takes_precision() -> bool:
    return "precision" in inspect.signature(IntTrainer).parameters


def _bf16(setting: Setting) -> Thunk | Skipped:
    try:
        return trainer_step(IntTrainer, setting, precision="bf16")
    except Exception as error:
        return Skipped(f"precision='bf16': {error}")


def trainer_step(
    make: Callable[..., Trainer], setting: Setting, **options: Any
) -> Callable[[], Any]:
    trainer = make(
        setting.model(),
        eps=setting.eps,
        steps=setting.steps,
        step_size=setting.step_size,
        lr=LR,
        **options,
    )
    x, y = setting.images()
    return lambda: trainer.training_step(x, y).loss


METHODS: dict[str, Callable[..., Trainer]] = {
    "Adv": AdvTrainer,
    "TRADES": TRADESTrainer,
    "Int": IntTrainer,
}


def _methods(device: str) -> Group:
    setting = Setting(device=device)
    return Group(
        section="one iteration of each method",
        title=f"methods, MNIST Small, batch {setting.batch}, {setting.steps} steps",
        entries=(*METHODS, FLOOR),
        build=lambda: {
            **{name: trainer_step(make, setting) for name, make in METHODS.items()},
            FLOOR: floors(setting)[FLOOR],
        },
        ours="Int",
        baseline="Adv",
        floor=FLOOR,
        budget=15.0,
    )


def _growth(base: Setting) -> Iterable[Group]:
    for axis, values in GROWTH.items():
        for value in values:
            setting = replace(base, **{axis: value})  # type: ignore[arg-type]
            yield Group(
                section=f"how one Int iteration grows with {AXES[axis]}",
                title=f"Int, Small, {AXES[axis]}: {value}",
                entries=(FLOOR, RELEASE, FUSED),
                build=partial(_growth_entries, setting),
                baseline=RELEASE,
                floor=FLOOR,
                axis=(AXES[axis], value),
                budget=2.0,
            )


def _growth_entries(setting: Setting) -> Entries:
    made = {
        FLOOR: floors(setting)[FLOOR],
        RELEASE: release_structure(setting),
        FUSED: trainer_step(IntTrainer, setting),
    }
    return dict(made)
