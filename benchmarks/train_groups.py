"""Training iterations: Int against its floor and eager programs, the methods, and growth."""

from __future__ import annotations

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
    folded_convolutions_alone,
    release_structure,
)
from fastinterp.training import AdvTrainer, IntTrainer, TRADESTrainer, Trainer
from fastinterp.training.graphs import WARM_UP
from fastinterp.training.precision import has_bf16

FLOOR = "convolutions and ReLUs alone, as the trainer runs them"
CHANNELS_LAST = "convolutions and ReLUs alone, channels_last"
CONTIGUOUS = "convolutions and ReLUs alone, contiguous"
RELEASE = "release's structure, eager"
KEPT = "clean maps kept, eager"
FUSED = "fused"
UNGRAPHED = "fused, without CUDA graphs"
BF16 = "fused, bf16 inner loop"

CPU_SETTINGS = {"MNIST Small": Setting(), "MNIST Pool": Setting("pool")}
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
        entries=(FLOOR, CHANNELS_LAST, CONTIGUOUS, RELEASE, KEPT, *_fused_ways(setting), BF16),
        build=partial(_int_entries, setting),
        baseline=RELEASE,
        floor=(FLOOR,),
        budget=45.0,
    )


def _fused_ways(setting: Setting) -> tuple[str, ...]:
    """On a GPU also what CUDA graphs are worth."""
    return (FUSED,) if setting.device == "cpu" else (FUSED, UNGRAPHED)


def _int_entries(setting: Setting) -> Entries:
    return {
        FLOOR: folded_convolutions_alone(setting),
        CHANNELS_LAST: convolutions_alone(setting, torch.channels_last),
        CONTIGUOUS: convolutions_alone(setting, torch.contiguous_format),
        RELEASE: release_structure(setting),
        KEPT: clean_kept(setting),
        **_fused_entries(setting),
        BF16: _bf16(setting),
    }


def _fused_entries(setting: Setting) -> Entries:
    entries: Entries = {FUSED: trainer_step(IntTrainer, setting)}
    if UNGRAPHED in _fused_ways(setting):
        entries[UNGRAPHED] = trainer_step(IntTrainer, setting, cuda_graphs=False)
    return entries


def _bf16(setting: Setting) -> Thunk | Skipped:
    if not has_bf16(torch.device(setting.device)):
        return Skipped("no units for bfloat16 here")
    return trainer_step(IntTrainer, setting, precision="bf16")


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
    if setting.device != "cpu":  # afterwards a step is a CUDA graph
        for _ in range(WARM_UP + 1):
            trainer.training_step(x, y)
    return lambda: trainer.training_step(x, y).loss


METHODS: dict[str, Callable[..., Trainer]] = {
    "Adv": AdvTrainer,
    "TRADES": TRADESTrainer,
    "Int": IntTrainer,
}


def _methods(device: str) -> Group:
    setting = Setting(device=device)
    alone = CHANNELS_LAST if setting.layout == torch.channels_last else CONTIGUOUS
    return Group(
        section="one iteration of each method",
        title=f"methods, MNIST Small, batch {setting.batch}, {setting.steps} steps",
        entries=(*METHODS, alone),
        build=lambda: {
            **{name: trainer_step(make, setting) for name, make in METHODS.items()},
            alone: convolutions_alone(setting, setting.layout),
        },
        ours="Int",
        baseline="Adv",
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
                floor=(FLOOR,),
                axis=(AXES[axis], value),
                budget=2.0,
            )


def _growth_entries(setting: Setting) -> Entries:
    return {
        FLOOR: folded_convolutions_alone(setting),
        RELEASE: release_structure(setting),
        FUSED: trainer_step(IntTrainer, setting),
    }
