"""Training iterations: Int against its floor and eager programs, the methods, and growth.

On a GPU all is exact float32, but for the entries whose names say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.group import Entries, Group, Skipped
from benchmarks.precision import in_tf32
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
FUSED_TF32 = "fused, tf32"
BF16 = "fused, bf16 inner loop"
FLOOR_TF32, RELEASE_TF32, KEPT_TF32 = (f"{name}, tf32" for name in (FLOOR, RELEASE, KEPT))
ON_A_GPU = (UNGRAPHED, FUSED_TF32, FLOOR_TF32, RELEASE_TF32, KEPT_TF32)  # and nowhere else
PRECISION = dict.fromkeys((FLOOR_TF32, RELEASE_TF32, KEPT_TF32, FUSED_TF32), "tf32")
PRECISION[BF16] = "bf16 inside, float32 outside"

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
    on_a_gpu = () if setting.device == "cpu" else ON_A_GPU
    return Group(
        section="one Int iteration",
        title=f"Int, {name}, batch {setting.batch}, {setting.steps} steps",
        entries=(FLOOR, CHANNELS_LAST, CONTIGUOUS, RELEASE, KEPT, FUSED, BF16, *on_a_gpu),
        build=partial(_int_entries, setting),
        baseline=RELEASE,
        floor=(FLOOR,),
        precision=PRECISION,
        budget=45.0 if setting.device == "cpu" else 15.0,
    )


def _int_entries(setting: Setting) -> Entries:
    entries: Entries = {
        FLOOR: folded_convolutions_alone(setting),
        CHANNELS_LAST: convolutions_alone(setting, torch.channels_last),
        CONTIGUOUS: convolutions_alone(setting, torch.contiguous_format),
        RELEASE: release_structure(setting),
        KEPT: clean_kept(setting),
        FUSED: trainer_step(IntTrainer, setting),
        BF16: _bf16(setting),
    }
    if setting.device != "cpu":
        entries |= {
            UNGRAPHED: trainer_step(IntTrainer, setting, cuda_graphs=False),
            FUSED_TF32: trainer_step(IntTrainer, setting, precision="tf32"),
            FLOOR_TF32: in_tf32(partial(folded_convolutions_alone, setting)),
            RELEASE_TF32: in_tf32(partial(release_structure, setting)),
            KEPT_TF32: in_tf32(partial(clean_kept, setting)),
        }
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
    if setting.device != "cpu":  # afterwards a step is the replay of a CUDA graph
        for _ in range(WARM_UP + 2):
            trainer.training_step(x, y)
        graphed = options.get("cuda_graphs") is not False
        assert (trainer.graph_replays > 0) == graphed, (
            f"{trainer.graph_replays} replays of a CUDA graph, where there must be "
            f"{'some' if graphed else 'none'}"
        )
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
