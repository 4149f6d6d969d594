"""One optimisation step, and short runs."""

from __future__ import annotations

import inspect
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastinterp import InputError
from fastinterp.attacks import PGD, CrossEntropy, LinfBall, ascend
from fastinterp.attacks.threats import BALLS
from fastinterp.models import GapClassifier
from fastinterp.training import (
    AdvTrainer,
    IGNormSumTrainer,
    IGNormTrainer,
    IntAdvTrainer,
    IntLoss,
    IntOneClassTrainer,
    IntTrainer,
    LinearEps,
    NormalTrainer,
    TRADESTrainer,
    TrainConfig,
    Trainer,
    method,
)
from fastinterp.training.trainers import INNER_LOOP

TRAINERS = {
    "normal": NormalTrainer,
    "adv": AdvTrainer,
    "trades": TRADESTrainer,
    "ig-norm": IGNormTrainer,
    "ig-norm-sum": IGNormSumTrainer,
    "int": IntTrainer,
    "int-1-class": IntOneClassTrainer,
    "int-adv": IntAdvTrainer,
}
INNER = {"eps": 0.1, "steps": 3, "step_size": 0.04}


def settings(name: str) -> dict:
    return {} if name == "normal" else INNER


@pytest.mark.parametrize("name", TRAINERS)
def test_each_trainer_lowers_its_loss(make_tiny, make_data, name: str) -> None:
    trainer = TRAINERS[name](make_tiny(), lr=0.02, **settings(name))
    assert trainer.method.name == name
    history = trainer.fit(make_data(64), epochs=12, batch_size=16, progress=False)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert history[-1]["clean_accuracy"] > history[0]["clean_accuracy"]
    assert (history[-1]["robust_accuracy"] is None) == (name == "normal")


def test_positional_arguments(make_tiny) -> None:
    """model, eps, gamma (if the method has one), steps, step_size."""
    for name, trainer in TRAINERS.items():
        if name == "normal":
            sgd = lambda p: torch.optim.SGD(p, lr=0.5)  # noqa: E731
            assert isinstance(trainer(make_tiny(), sgd).optimizer, torch.optim.SGD)
            continue
        weight = [] if name == "adv" else [0.5]
        made = trainer(make_tiny(), 0.1, *weight, 4, 0.03, seed=7)
        config = made.config
        assert (config.eps, config.steps, config.step_size, config.seed) == (0.1, 4, 0.03, 7)
        assert made.method.gamma == (0.5 if weight else None)
        assert trainer(make_tiny()).config == TrainConfig()
        assert trainer(make_tiny()).method.gamma == method(name).gamma
        assert inspect.getdoc(trainer)


@pytest.mark.parametrize("trainer", [*TRAINERS.values(), Trainer])
@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("alpha", "'step_size'"),
        ("num_steps", "'steps'"),
        ("iters", "'steps'"),
        ("nb_iter", "'steps'"),
        ("epsilon", "'eps'"),
        ("learning_rate", "'lr'"),
        ("epochs", "fit(epochs=...)"),
        ("batch_size", "fit(batch_size=...)"),
        ("randm_start", "'random_start'"),
    ],
)
def test_a_wrong_keyword_gets_a_hint(make_tiny, trainer, given: str, ours: str) -> None:
    first = (make_tiny(), "int") if trainer is Trainer else (make_tiny(),)
    with pytest.raises(InputError, match=rf"^{trainer.__name__} has no setting '{given}'") as error:
        trainer(*first, **{given: 1})
    inner = ours.strip("'") in INNER_LOOP
    assert ours in str(error.value) or (inner and trainer is NormalTrainer)


def test_settings_of_another_trainer_are_refused(make_tiny) -> None:
    for trainer, name in (
        (NormalTrainer, "eps"),
        (AdvTrainer, "gamma"),
        (IGNormTrainer, "interpreter"),
        (IntTrainer, "method"),
        (IntTrainer, "config"),
        (IntLoss, "lr"),
        (IntLoss, "model"),
    ):
        first = () if trainer is IntLoss else (make_tiny(),)
        with pytest.raises(InputError, match=f"{trainer.__name__} has no setting '{name}'"):
            trainer(*first, **{name: 0.5})


def test_one_object_of_settings_serves_several_trainers(make_tiny, make_data) -> None:
    config = TrainConfig(eps=0.1, steps=3, step_size=0.04, lr=0.01)
    trainer = Trainer(make_tiny(), "adv", config, seed=1)
    assert trainer.config == replace(config, seed=1)
    twin = AdvTrainer(make_tiny(), 0.1, 3, 0.04, lr=0.01, seed=1)
    assert trainer.training_step(*make_data(8)).loss == twin.training_step(*make_data(8)).loss


def test_a_setting_is_changed_by_another_config(make_tiny, make_data) -> None:
    trainer = AdvTrainer(make_tiny(), lr=0.01, **INNER)
    with pytest.raises(InputError, match=r"dataclasses\.replace\(trainer\.config, steps="):
        trainer.steps = 5
    trainer.model.calls = 0
    trainer.config = replace(trainer.config, steps=5)
    trainer.training_step(*make_data(8))
    assert trainer.model.calls == 1 + 5 + 1
    with pytest.raises(InputError, match="eps must be"):
        replace(trainer.config, eps=-1.0)


def test_one_step_against_a_loop_of_its_own(make_tiny, make_data) -> None:
    """Adversarial training with plain SGD, written out."""
    x, y = make_data(8, torch.float64)
    model, twin = make_tiny(torch.float64), make_tiny(torch.float64)
    trainer = AdvTrainer(
        model,
        eps=0.1,
        steps=3,
        step_size=0.04,
        random_start=False,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.5),
    )
    result = trainer.training_step(x, y)

    z = x.clone()
    for _ in range(3):
        z.requires_grad_()
        (grad,) = torch.autograd.grad(nn.functional.cross_entropy(twin(z), y), z)
        z = torch.clamp(z.detach() + 0.04 * grad.sign(), x - 0.1, x + 0.1).clamp(0, 1)
    loss = nn.functional.cross_entropy(twin(z), y)
    grads = torch.autograd.grad(loss, list(twin.parameters()))
    with torch.no_grad():
        clean_right = (twin(x).argmax(1) == y).double().mean()
        robust_right = (twin(z).argmax(1) == y).double().mean()
        for parameter, grad in zip(twin.parameters(), grads, strict=True):
            parameter -= 0.5 * grad

    assert torch.allclose(result.loss, loss)
    assert torch.allclose(result.clean_accuracy.double(), clean_right)
    assert torch.allclose(result.robust_accuracy.double(), robust_right)
    assert (result.images, trainer.step) == (8, 1)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm", BALLS)
def test_steps_in_every_norm(make_tiny, make_data, norm: str) -> None:
    """x' is what the attack of that norm finds, in its ball; the settings say which."""
    x, y = make_data(8, torch.float64)
    eps = {"linf": 0.1, "l2": 0.8, "l1": 4.0}[norm]
    how = {"eps": eps, "steps": 3, "step_size": eps / 2}
    model, twin = make_tiny(torch.float64), make_tiny(torch.float64)
    sgd = lambda p: torch.optim.SGD(p, lr=0.5)  # noqa: E731
    trainer = AdvTrainer(model, optimizer=sgd, random_start=False, norm=norm, **how)
    result = trainer.training_step(x, y)
    x_adv = PGD(twin, eps, eps / 2, 3, norm)(x, y)
    assert torch.allclose(result.loss, nn.functional.cross_entropy(twin(x_adv), y))
    assert trainer.settings["norm"] == norm

    criterion = IntLoss(seed=5, norm=norm, **how)
    expected = IntTrainer(make_tiny(), seed=5, norm=norm, **how).training_step(*make_data(8)).loss
    assert torch.equal(criterion(make_tiny(), *make_data(8)).detach(), expected)


def test_passes_of_a_step(make_tiny, make_data) -> None:
    """Features at x once, one pass for each inner step, one at the final x'."""
    model = make_tiny()
    for name in ("int", "int-1-class", "int-adv", "trades"):
        model.calls = 0
        TRAINERS[name](model, eps=0.1, steps=5).training_step(*make_data(8))
        assert model.calls == 1 + 5 + 1


def test_batch_normalisation_gets_its_own_clean_pass(make_tiny, make_data) -> None:
    """In train mode the pass at x uses the batch's statistics, the inner loop the running ones."""
    model = make_tiny(norm=True)
    trainer = IntTrainer(model, eps=0.1, steps=5)
    trainer.training_step(*make_data(8))
    assert model.calls == 1 + 1 + 5 + 1
    assert int(model.norm.num_batches_tracked) == 2  # at x and at x', not within the inner loop
    model.eval()
    model.calls = 0
    trainer.training_step(*make_data(8))
    assert model.calls == 1 + 5 + 1
    assert not model.training


def test_no_eps_no_inner_loop(make_tiny, make_data) -> None:
    """With eps = 0 the loop would give x back; its absence changes no bit of the weights."""
    x, y = make_data(8)
    eager, lazy, normal = make_tiny(), make_tiny(), make_tiny()
    still = ascend(eager, LinfBall(0.0, 0.01), CrossEntropy(), x, y, 3, random_start=True)
    assert torch.equal(still, x)
    lazy.calls = 0
    result = IntTrainer(lazy, eps_schedule=(5, 10)).training_step(x, y)
    assert lazy.calls == 1
    assert torch.equal(result.clean_correct, result.robust_correct)
    NormalTrainer(normal).training_step(x, y)
    for a, b in zip(lazy.parameters(), normal.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-9)


def test_schedules(make_tiny, make_data) -> None:
    x, y = make_data(8)
    trainer = IntTrainer(
        make_tiny(), eps=0.2, eps_schedule=(1, 3), steps=1, lr=1e-2, lr_milestones=(0, 2)
    )
    radii, rates = [], []
    for _ in range(4):
        radii.append(trainer.current_eps())
        trainer.training_step(x, y)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert radii == pytest.approx([0, 0, 0.1, 0.2])
    assert rates == pytest.approx([1e-2, 1e-3, 1e-3, 1e-4])
    assert IntTrainer(make_tiny(), eps_schedule=lambda step: 0.01 * step).current_eps() == 0
    assert IntTrainer(make_tiny(), eps_schedule=LinearEps(0.5, 0, 0)).config.eps_at(1) == 0.5


def test_the_seed_decides(make_tiny, make_data) -> None:
    def weights(seed: int, disturb: bool = False) -> torch.Tensor:
        model = make_tiny()
        if disturb:
            torch.manual_seed(99)
        IntTrainer(model, seed=seed, lr=0.01, **INNER).fit(
            make_data(32), epochs=2, batch_size=8, progress=False
        )
        return nn.utils.parameters_to_vector(model.parameters())

    first = weights(0)
    assert torch.equal(first, weights(0, disturb=True))
    assert not torch.equal(first, weights(1))


def test_optimizers(make_tiny, make_data) -> None:
    model = make_tiny()
    mine = torch.optim.SGD(model.parameters(), lr=0.3)
    assert NormalTrainer(model, optimizer=mine).optimizer is mine
    made = NormalTrainer(model, optimizer=lambda p: torch.optim.AdamW(p, lr=0.1)).optimizer
    assert isinstance(made, torch.optim.AdamW)
    model.conv.requires_grad_(False)
    before = model.conv.weight.clone()
    trainer = IntTrainer(model, lr=0.1, **INNER)
    trainer.training_step(*make_data(8))
    assert torch.equal(model.conv.weight, before)
    assert model.conv.weight.grad is None


def test_a_step_size_that_nobody_names_crosses_the_ball(make_tiny) -> None:
    assert IntTrainer(make_tiny()).config.step_size == 0.01
    for norm, eps in (("l2", 2.0), ("l1", 10.0)):
        assert IntTrainer(make_tiny(), eps=eps, steps=20, norm=norm).config.step_size == eps / 8
        assert IntLoss(eps=eps, steps=20, norm=norm).config.step_size == eps / 8
    with pytest.warns(UserWarning, match=r"^int: .*0\.05 is smaller than eps = 0\.3"):
        IntTrainer(make_tiny(), eps=0.3, steps=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NormalTrainer(make_tiny())
        IntTrainer(make_tiny(), eps=0.3, steps=30)


def test_maps_of_one_position_are_remarked_on(make_data) -> None:
    class Deep(GapClassifier):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 6, 8)
            self.weight, self.bias = nn.Parameter(torch.randn(4, 6)), None

        def features(self, x: Tensor) -> Tensor:
            return self.conv(x)

    with pytest.warns(UserWarning, match="^int: images of 8x8 give feature maps of one position"):
        IntTrainer(Deep(), eps=0.1, steps=10).training_step(*make_data(8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AdvTrainer(Deep(), eps=0.1, steps=10).training_step(*make_data(8))


def test_autocast_around_a_step(make_tiny, make_data) -> None:
    model = make_tiny()
    before = model.head.weight.detach().clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = IntTrainer(model, lr=0.01, **INNER).training_step(*make_data(8))
    assert result.loss.isfinite()
    assert not torch.equal(model.head.weight, before)


def test_a_method_made_by_hand(make_tiny, make_data) -> None:
    from dataclasses import replace

    by_cross_entropy = replace(method("int"), name="int2", inner=CrossEntropy())
    trainer = Trainer(make_tiny(), by_cross_entropy, random_start=False, **INNER)
    assert trainer.training_step(*make_data(8)).loss.isfinite()
    assert trainer.settings["method"] == "int2"
    assert Trainer(make_tiny(), "trades").settings["method"] == "trades"


def test_numbers_of_numpy_are_numbers(make_tiny) -> None:
    settings = {"eps": np.float32(0.5), "steps": np.int64(2), "gamma": np.float64(1.0)}
    trainer = IntTrainer(make_tiny(), seed=np.int64(1), lr_milestones=[np.int64(3)], **settings)
    assert json.loads(json.dumps(trainer.settings))["eps"] == 0.5


def test_images_are_counted_before_the_step(make_tiny, make_data) -> None:
    """At x' as at x, though Int asks for no logits at x'."""
    x, y = make_data(16)
    trainer = IntTrainer(make_tiny(), eps=1e-6, optimizer=lambda p: torch.optim.SGD(p, lr=1e3))
    result = trainer.training_step(x, y)
    assert torch.equal(result.robust_correct, result.clean_correct)
    assert not torch.equal((trainer.model(x).argmax(1) == y).sum(), result.clean_correct)
