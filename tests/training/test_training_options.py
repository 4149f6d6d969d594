"""Optimizers, schedulers, clipping, label smoothing, the average of the weights, and AWP."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from resumable import EPOCHS, STEPS, run
from safetensors.torch import load_file
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fastinterp import InputError, models
from fastinterp.attacks import Outputs
from fastinterp.training import NormalTrainer, Trainer, load_recipe, run_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def plateau(optimizer):
    return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=10.0)


def chained(optimizer):
    warm = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3)
    falling = lr_scheduler.MultiStepLR(optimizer, [5, 5, 9])
    return lr_scheduler.SequentialLR(optimizer, [warm, falling], milestones=[4])


RUNS: dict[str, dict[str, Any]] = {
    "everything": {
        "optimizer": "sgd",
        "lr": 0.05,
        "weight_decay": 1e-3,
        "scheduler": "cosine",
        "clip_grad": 0.1,
        "label_smoothing": 0.1,
        "ema": 0.9,
        "awp": 0.01,
    },
    "steps": {"scheduler": chained, "scheduler_every": "step", "optimizer": "adamw"},
    "cycle": {
        "scheduler": lambda o: lr_scheduler.OneCycleLR(o, 0.01, total_steps=EPOCHS * STEPS + 1),
        "scheduler_every": "step",
    },
    "plateau": {"scheduler": plateau},
}


@pytest.mark.parametrize("name", RUNS)
def test_stopped_and_resumed_bit_for_bit(tmp_path: Path, watch_steps, name: str) -> None:
    """In the middle of the third epoch."""
    settings = {"lr_milestones": (), **RUNS[name]}
    whole, history = run(None, **settings)

    def stop(trainer: Trainer, result: object) -> None:
        if trainer.step == 2 * STEPS + 3 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise KeyboardInterrupt

    watch_steps(after=stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, **settings)
    resumed, again = run(tmp_path, **settings)
    states = [
        [*t.model.parameters(), *(t.ema.parameters() if t.ema else ())] for t in (whole, resumed)
    ]
    assert all(map(torch.equal, *states))
    assert [row["lr"] for row in history] == [row["lr"] for row in again]


def test_learning_rates_are_those_of_torch(make_tiny, make_data) -> None:
    def rates(**settings: Any) -> list[float]:
        trainer = NormalTrainer(make_tiny(), **settings)
        return [row["lr"] for row in trainer.fit(make_data(8), 6, 8, progress=False)]

    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    theirs, scheduler = [], lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(6):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    falling = {"scheduler": lambda o: lr_scheduler.ExponentialLR(o, 0.5)}
    assert rates(optimizer="sgd", **falling) == pytest.approx(theirs)
    by_step = rates(optimizer="sgd", scheduler_every="step", **falling)
    assert by_step == pytest.approx([*theirs[1:], theirs[-1] / 2])  # of the next step
    cosine = [0.05 * (1 + torch.cos(torch.tensor(torch.pi * k / 6)).item()) for k in range(6)]
    assert rates(optimizer="sgd", scheduler="cosine") == pytest.approx(cosine, rel=1e-5)
    assert rates(lr=0.3, scheduler="triangle") == pytest.approx([0, 0.1, 0.2, 0.3, 0.2, 0.1])


def test_a_step_of_sgd_by_hand(make_tiny, make_data) -> None:
    """Clipped, smoothed, decayed and with momentum, against a loop in plain torch."""
    x, y = make_data(8, torch.float64)
    trainer = Trainer(
        make_tiny(torch.float64), "normal", optimizer="sgd", lr=0.1, weight_decay=0.01,
        clip_grad=0.05, label_smoothing=0.2, ema=0.8,
    )  # fmt: skip
    model = make_tiny(torch.float64)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    speed = {p: torch.zeros_like(p) for p in model.parameters()}
    for _ in range(3):
        trainer.training_step(x, y)
        log_p = model(x).log_softmax(1)
        loss = -(0.8 * log_p[torch.arange(8), y] + 0.2 * log_p.mean(1)).mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        assert norm > 0.05
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients, strict=True):
                g = g * 0.05 / (norm + 1e-6) + 0.01 * p
                speed[p] = g if not speed[p].any() else 0.9 * speed[p] + g
                p -= 0.1 * (g + 0.9 * speed[p])
        average.update_parameters(model)
    for ours, theirs in zip(trainer.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10)
    for ours, theirs in zip(trainer.ema.parameters(), average.module.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10)


@pytest.mark.parametrize("name", ["trades", "int-adv"])
def test_awp_against_its_formula(make_tiny, make_data, name: str) -> None:
    """The gradient at w + size ||w|| g / ||g||, layer by layer, applied to w."""
    x, y = make_data(6, torch.float64)
    settings = {"eps": 0.1, "steps": 3, "step_size": 0.05}
    found: dict[str, torch.Tensor] = {}
    sgd = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.5)}
    trainer = Trainer(make_tiny(torch.float64), name, awp=0.02, **sgd, **settings)
    start = copy.deepcopy(trainer.model)
    loss = trainer.method.loss

    def listen(clean: Outputs, adv: Outputs, labels: torch.Tensor) -> torch.Tensor:
        found["x_adv"] = adv.x
        return loss(clean, adv, labels)

    object.__setattr__(trainer.method, "loss", listen)
    trainer.training_step(x, y)

    def gradients(model):
        at = loss(Outputs(model, x), Outputs(model, found["x_adv"]), y).mean()
        return torch.autograd.grad(at, list(model.parameters()))

    moved, first = copy.deepcopy(start), gradients(start)
    with torch.no_grad():
        for w, g in zip(moved.parameters(), first, strict=True):
            if w.dim() > 1:
                w += 0.02 * w.norm() * g / g.norm()
    for ours, w, g in zip(
        trainer.model.parameters(), start.parameters(), gradients(moved), strict=True
    ):
        assert torch.allclose(ours, w - 0.5 * g, rtol=1e-9, atol=1e-12)


def test_the_average_is_validated_and_kept(tmp_path: Path, make_data) -> None:
    model = models.small(1, 4, seed=0)
    x, y = make_data(16)
    trainer = NormalTrainer(model, lr=1e-2, ema=0.5)
    history = trainer.fit((x, y), 3, 8, (x, y), tmp_path, progress=False)
    correct = (trainer.ema.eval()(x).argmax(1) == y).float().mean().item()
    assert history[-1]["val_accuracy"] == pytest.approx(correct)
    saved = load_file(tmp_path / "ema.safetensors")
    for name, value in trainer.ema.state_dict().items():
        assert torch.equal(saved[name], value)
    assert not torch.equal(next(trainer.ema.parameters()), next(model.parameters()))
    assert (tmp_path / "best.safetensors").exists()


def test_a_recipe_names_them(tmp_path: Path) -> None:
    names = ["optimizer=sgd", "lr=0.01", "scheduler=triangle", "ema=0.9", "awp=0.005"]
    names += ["epochs=1", "train_images=60", "steps=1", "label_smoothing=0.1", "clip_grad=1"]
    recipe = load_recipe("digits-trades", [*names, "weight_decay=5e-4"])
    done = run_recipe(recipe, out=tmp_path, device="cpu", progress=False)
    settings = models.info(tmp_path / "model.safetensors")["settings"]
    assert settings["scheduler"] == "triangle" and settings["awp"] == 0.005
    assert settings["optimizer"] == "SGD" and len(done.history) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimizer": "adm"}, "optimizer"),
        ({"scheduler": "cosin"}, "scheduler"),
        ({"scheduler": "cosine", "lr_milestones": (3,)}, "leave one out"),
        ({"scheduler": lambda o: None}, "one of torch's schedulers"),
        ({"optimizer": torch.optim.SGD, "weight_decay": 1.0}, "its own"),
        ({"ema": 1.0}, "ema must lie in"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"clip_grad": -1}, "clip_grad"),
        ({"awp": float("nan")}, "awp"),
    ],
)
def test_bad_options_are_refused(make_tiny, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        NormalTrainer(make_tiny(), **settings)


def test_a_shape_needs_the_number_of_steps(make_tiny, make_data) -> None:
    with pytest.raises(InputError, match="needs the number of steps"):
        NormalTrainer(make_tiny(), scheduler="cosine").training_step(*make_data(4))
