"""IntLoss in a loop of one's own is IntTrainer's step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastinterp import InputError, IntAdvTrainer, IntLoss, IntOneClassTrainer, IntTrainer
from fastinterp.interpreters import GradCAM

INNER = {"eps": 0.1, "steps": 3, "step_size": 0.04}


@pytest.mark.parametrize(
    ("trainer_kind", "options"),
    [
        (IntTrainer, {"gamma": 0.3}),
        (IntTrainer, {"gamma": 0.3, "inner": "cross-entropy"}),
        (IntTrainer, {"gamma": 0.3, "interpreter": GradCAM}),
        (IntTrainer, {"eps_schedule": (0, 2)}),
        (IntOneClassTrainer, {"gamma": 0.3}),
        (IntAdvTrainer, {"gamma": 0.3}),
    ],
)
def test_the_same_steps_as_the_trainer(make_tiny, make_data, trainer_kind, options: dict) -> None:
    which = {IntOneClassTrainer: {"reduction": "1-class"}, IntAdvTrainer: {"method": "int-adv"}}
    x, y = make_data(8)
    trainer = trainer_kind(
        make_tiny(), seed=5, optimizer=lambda p: torch.optim.SGD(p, lr=0.1), **INNER, **options
    )
    model = make_tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = IntLoss(seed=5, **which.get(trainer_kind, {}), **INNER, **options)
    for _ in range(3):
        expected = trainer.training_step(x, y).loss
        loss = criterion(model, x, y)
        assert loss.shape == () and torch.equal(loss.detach(), expected)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_count_of_calls_travels_in_the_state(make_tiny, make_data) -> None:
    model, batch = make_tiny(), make_data(8)
    first, second = IntLoss(gamma=1.0, **INNER), IntLoss(gamma=1.0, **INNER)
    start = first(model, *batch).detach()
    second.load_state_dict(first.state_dict())
    later = first(model, *batch).detach()
    assert torch.equal(second(model, *batch).detach(), later)
    assert not torch.equal(start, later)  # another random start


def test_the_model_is_left_as_it_was(make_tiny, make_data) -> None:
    model = make_tiny(norm=True)
    IntLoss(**INNER)(model, *make_data(8))
    assert model.training and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": -1.0}, "gamma must be"),
        ({"eps": -1.0}, "eps must be"),
        ({"norm": "l3"}, "norm must be one of"),
        ({"method": "adv"}, "method must be one of"),
        ({"method": "int", "reduction": "1-class"}, "belongs to"),
        ({"alpha": 0.1}, "did you mean 'step_size'"),
        ({"reduction": "2-class"}, "reduction must be"),
        ({"random_start": False}, "random_start=True"),
        ({"inner": "kl"}, "inner must be one of"),
        ({"interpreter": "cam"}, "interpreter must be a function"),
    ],
)
def test_bad_settings_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        IntLoss(**arguments)


def test_bad_batches_are_refused(make_tiny, make_data) -> None:
    x, y = make_data(8)
    with pytest.raises(InputError, match="Flatten does not have"):
        IntLoss()(nn.Flatten(), x, y)
    with pytest.raises(InputError, match="labels must have shape"):
        IntLoss()(make_tiny(), x, y[:3])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x, y: (255 * x, y), r"pixels must lie in \[0, 1\]"),
        (lambda x, y: ((x - 0.5) / 0.2, y), "normalisation belongs inside the model"),
        (lambda x, y: (x.fill_(torch.nan), y), "got nan"),
        (lambda x, y: (x[:0], y[:0]), "the batch is empty"),
    ],
)
def test_what_would_be_a_wrong_loss_in_silence_is_refused(make_tiny, make_data, change, says):
    loss = IntLoss(eps=0.1, steps=1, step_size=0.1)
    with pytest.raises(InputError, match=f"^IntLoss: .*{says}") as error:
        loss(make_tiny(), *change(*make_data(4)))
    assert "\n" not in str(error.value) and loss.step == 0


def test_a_linf_eps_above_1_is_refused() -> None:
    for make in (IntLoss, lambda **settings: IntTrainer(nn.Module(), **settings)):
        with pytest.raises(InputError, match="write 8/255"):
            make(eps=8)
    IntLoss(eps=2.0, norm="l2")
