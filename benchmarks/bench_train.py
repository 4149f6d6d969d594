"""Training iterations: Int against its floor and eager programs, the methods, and growth.
`make bench` runs this.

On a GPU all is exact float32, except entries whose names say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.train_peers import (
    LR,
    Setting,
    as_released,
    clean_maps_once,
    convolutions_alone,
    folded_convolutions_alone,
)
from benchmarks.utils import FUSED, Entries, Group, Thunk, unavailable, use_tf32
from fastinterp.training import FAST, AdvTrainer, IntTrainer, TRADESTrainer, Trainer
from fastinterp.training.graphs import WARM_UP
from fastinterp.training.precision import has_bf16

FLOOR = "convolutions and ReLUs alone, as the trainer runs them"
CHANNELS_LAST = "convolutions and ReLUs alone, channels_last"
CONTIGUOUS = "convolutions and ReLUs alone, contiguous"
RELEASED = "eager, as in the authors' release"
ONCE = "eager, clean maps computed once"
UNGRAPHED = "fused, without CUDA graphs"
FUSED_TF32 = "fused, tf32"
BF16 = "fused, bf16 inner loop"
FAST_NAME = "fused, FAST: bf16 inner loop, channels_last, compiled"
FLOOR_TF32, RELEASED_TF32, ONCE_TF32 = (f"{name}, tf32" for name in (FLOOR, RELEASED, ONCE))
ON_A_GPU = (FAST_NAME, UNGRAPHED, FUSED_TF32, FLOOR_TF32, RELEASED_TF32, ONCE_TF32)
PRECISION = dict.fromkeys((FLOOR_TF32, RELEASED_TF32, ONCE_TF32, FUSED_TF32), "tf32")
PRECISION[BF16] = PRECISION[FAST_NAME] = "bf16 inside, float32 outside"

METHODS = {"Adv": AdvTrainer, "TRADES": TRADESTrainer, "Int": IntTrainer}
CPU_SETTINGS = {"MNIST Small": Setting(), "MNIST Pool": Setting("pool")}
GPU_SETTINGS = {
    "MNIST Small": Setting(device="cuda"),
    "CIFAR WResnet": Setting(
        "wresnet", 128, 3, 32, steps=10, eps=8 / 255, step_size=2 / 255, device="cuda"
    ),
}
SHORT = Setting(steps=10)  # for growth: a shorter inner loop, so that all plots take a minute
# What grows: its name in the plot, and its values.
GROWTH: dict[str, tuple[str, tuple[int, ...]]] = {
    "batch": ("images in a batch", (10, 25, 50, 100, 200)),
    "size": ("pixels a side", (28, 40, 56)),
    "classes": ("classes", (10, 30, 100, 300)),
    "steps": ("inner steps", (5, 10, 20, 40)),
}


def groups(device: str) -> list[Group]:
    settings = CPU_SETTINGS if device == "cpu" else GPU_SETTINGS
    iterations = [_iteration(name, setting) for name, setting in settings.items()]
    base = replace(SHORT, device=device)
    growth = [
        _growth(axis, value, replace(base, **{attribute: value}))
        for attribute, (axis, values) in GROWTH.items()
        for value in values
    ]
    return [*iterations, _methods(device), *growth]


def _iteration(name: str, setting: Setting) -> Group:
    on_a_gpu = () if setting.device == "cpu" else ON_A_GPU
    return Group(
        section="one Int iteration",
        title=f"Int, {name}, batch {setting.batch}, {setting.steps} steps",
        entries=(FLOOR, CHANNELS_LAST, CONTIGUOUS, RELEASED, ONCE, FUSED, BF16, *on_a_gpu),
        build=partial(build, setting),
        baseline=RELEASED,
        floor=(FLOOR,),
        precision=PRECISION,
        budget=45.0 if setting.device == "cpu" else 15.0,
    )


def build(setting: Setting) -> Entries:
    """The entries of one Int iteration."""
    bf16 = has_bf16(torch.device(setting.device))
    entries: Entries = {
        FLOOR: folded_convolutions_alone(setting),
        CHANNELS_LAST: convolutions_alone(setting, torch.channels_last),
        CONTIGUOUS: convolutions_alone(setting, torch.contiguous_format),
        RELEASED: as_released(setting),
        ONCE: clean_maps_once(setting),
        FUSED: trainer_step(IntTrainer, setting),
        BF16: trainer_step(IntTrainer, setting, precision="bf16")
        if bf16
        else unavailable("no units for bfloat16 here"),
    }
    if setting.device != "cpu":
        entries |= {
            FAST_NAME: trainer_step(IntTrainer, setting, **FAST),
            UNGRAPHED: trainer_step(IntTrainer, setting, cuda_graphs=False),
            FUSED_TF32: trainer_step(IntTrainer, setting, precision="tf32"),
            FLOOR_TF32: in_tf32(partial(folded_convolutions_alone, setting)),
            RELEASED_TF32: in_tf32(partial(as_released, setting)),
            ONCE_TF32: in_tf32(partial(clean_maps_once, setting)),
        }
    return entries


def trainer_step(make: Callable[..., Trainer], setting: Setting, **options: Any) -> Thunk:
    """One training step; on a GPU it must be the replay of a CUDA graph, unless `cuda_graphs` is
    False."""
    attack = {"eps": setting.eps, "steps": setting.steps, "step_size": setting.step_size}
    trainer = make(setting.model(), **attack, lr=LR, **options)
    x, y = setting.images()
    if setting.device != "cpu":
        for _ in range(WARM_UP + 2):
            trainer.training_step(x, y)
        graphed = options.get("cuda_graphs") is not False
        assert (trainer.graph_replays > 0) == graphed, (
            f"{trainer.graph_replays} replays of a CUDA graph, where there must be "
            f"{'some' if graphed else 'none'}"
        )
    return lambda: trainer.training_step(x, y).loss


def in_tf32(make: Callable[[], Thunk]) -> Thunk:
    """The program that `make` makes, made and run in TF32."""
    with _tf32():
        run = make()
    return _tf32()(run)


@contextmanager
def _tf32() -> Iterator[None]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    use_tf32(True)
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


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


def _growth(axis: str, value: int, setting: Setting) -> Group:
    return Group(
        section=f"how one Int iteration grows with {axis}",
        title=f"Int, Small, {axis}: {value}",
        entries=(FLOOR, RELEASED, FUSED),
        build=lambda: {
            FLOOR: folded_convolutions_alone(setting),
            RELEASED: as_released(setting),
            FUSED: trainer_step(IntTrainer, setting),
        },
        baseline=RELEASED,
        floor=(FLOOR,),
        axis=(axis, value),
        budget=2.0,
    )


def bench(timed, group, entry):
    timed(group, entry)
