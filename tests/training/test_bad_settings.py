"""Settings, models and batches that a trainer refuses, each with one sentence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastinterp import InputError
from fastinterp.interpreters import GradCAM, Repr
from fastinterp.training import AdvTrainer, IntLoss, IntTrainer, NormalTrainer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": -1.0}, "eps must be"),
        ({"norm": "l3"}, "norm must be one of"),
        ({"precision": "fp8"}, "precision must be one of"),
        ({"step_size": float("nan")}, "step_size must be"),
        ({"steps": -1}, "steps must be"),
        ({"gamma": -1.0}, "gamma must be"),
        ({"lr": -1.0}, "lr must be"),
        ({"random_start": False}, "random_start=True"),
        ({"eps_schedule": (5, 3)}, "0 <= start <= end"),
        ({"eps_schedule": (1, 2, 3)}, "eps_schedule must be"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"eps": "0.1"}, r"^eps must be a number, got '0\.1'\.$"),
        ({"eps": torch.full((8,), 0.1)}, "^eps must be a number, got a tensor"),
        ({"step_size": torch.tensor(0.1)}, "^step_size must be a number, got a tensor"),
        ({"lr": "a"}, r"^lr must be a number, got 'a'\.$"),
        ({"gamma": "a"}, r"^gamma must be a number, got 'a'\.$"),
        ({"seed": "a"}, r"^seed must be a whole number, got 'a'\.$"),
        ({"steps": 1.5}, r"^steps must be a whole number, got 1\.5\.$"),
        ({"eps_schedule": 5}, r"^eps_schedule must be \(start, end\).*got 5\.$"),
        ({"lr_milestones": (5, "a")}, r"^lr_milestones: a step must be a whole number, got 'a'\.$"),
        ({"lr_milestones": 5}, r"^lr_milestones must be a list of steps, got 5\.$"),
        ({"interpreter": Repr}, r"Repr has none; take another\.$"),
        ({"interpreter": 3}, r"GradCAM itself, got int\.$"),
        ({"optimizer": 3}, r"^optimizer must be an optimizer.*AdamW, got 3\.$"),
        ({"optimizer": lambda p: 3}, r"got a function that made 3\.$"),
        (
            {"optimizer": torch.optim.SGD, "lr": 0.5},
            r"^lr = 0\.5 is for the default.*SGD\(.*lr=0\.5\)\.$",
        ),
        ({"optimizer": torch.optim.SGD([torch.zeros(2)])}, "holds no parameter of the model"),
    ],
)
def test_bad_settings_are_refused(make_tiny, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        IntTrainer(make_tiny(), **arguments)


def test_an_interpreter_that_is_made_already_is_refused(make_tiny) -> None:
    model = make_tiny()
    with pytest.raises(InputError, match=r"GradCAM itself, got an instance of GradCAM\.$"):
        IntTrainer(model, interpreter=GradCAM(model))


def test_bad_models_are_refused(make_tiny) -> None:
    with pytest.raises(InputError, match=r"Linear does not have.*wrap, or pass interpreter="):
        IntTrainer(nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"GradCAM needs a GapClassifier, got Linear.*wrap"):
        IntTrainer(nn.Linear(2, 2), interpreter=GradCAM)
    with pytest.raises(InputError, match="compile=True needs a GapClassifier"):
        NormalTrainer(nn.Linear(2, 2), compile=True)
    with pytest.raises(InputError, match="no parameter to train"):
        IntTrainer(make_tiny().requires_grad_(False))


def test_bad_batches_are_refused(make_tiny, make_data) -> None:
    x, y = make_data(8)
    with pytest.raises(InputError, match="labels must have shape"):
        NormalTrainer(make_tiny()).training_step(x, y[:4])
    with pytest.raises(InputError, match="labels must be an integer"):
        NormalTrainer(make_tiny()).training_step(x, y.float())
    with pytest.raises(InputError, match=r"labels must lie in 0\.\.3 for 4 classes, got 4\.\.7"):
        AdvTrainer(make_tiny()).training_step(x, y + 4)
    with pytest.raises(InputError, match=r"IntLoss: labels must lie in 0\.\.3"):
        IntLoss()(make_tiny(), x, y + 4)
    bytes_ = (255 * x).to(torch.uint8)
    with pytest.raises(InputError, match=r"^training_step: x must be.*divide 8-bit images by 255"):
        AdvTrainer(make_tiny()).training_step(bytes_, y)
    with pytest.raises(InputError, match=r"^IntLoss: x must be.*divide 8-bit images by 255"):
        IntLoss()(make_tiny(), bytes_, y)
