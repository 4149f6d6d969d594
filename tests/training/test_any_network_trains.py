"""Trainers that read only logits train any network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fastinterp import (
    AdvTrainer,
    IGNormSumTrainer,
    IGNormTrainer,
    InputError,
    IntAdvTrainer,
    IntLoss,
    IntOneClassTrainer,
    IntTrainer,
    NormalTrainer,
    TRADESTrainer,
)
from fastinterp.interpreters import IntegratedGradients
from fastinterp.models import GapClassifier
from fastinterp.training import Trainer
from fastinterp.training.methods import method

FEW = {"eps": 0.1, "steps": 2, "step_size": 0.1}


def few_points(model: nn.Module) -> IntegratedGradients:
    return IntegratedGradients(model, steps=3)


class Same(nn.Module):
    """The function of a GapClassifier in a module that is none."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return logits


WITH_IG = FEW | {"interpreter": few_points}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (NormalTrainer, {}),
        (AdvTrainer, FEW),
        (TRADESTrainer, FEW),
        (IGNormTrainer, FEW),
        (IGNormSumTrainer, FEW),
        (IntTrainer, WITH_IG),
        (IntOneClassTrainer, WITH_IG),
        (IntAdvTrainer, WITH_IG),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_it_trains_as_the_same_gap_classifier_does(kind, settings, make_tiny, make_data) -> None:
    data = make_data(16)
    trained, histories = [], []
    for change in (lambda model: model, Same):
        model = change(make_tiny())
        history = kind(model, lr=0.01, **settings).fit(
            data, epochs=2, batch_size=8, val_data=data, progress=False
        )
        histories.append([(row["loss"], row["val_accuracy"]) for row in history])
        trained.append(list(model.parameters()))
    for row, other in zip(*histories, strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    for one, other in zip(*trained, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_run_resumes(make_tiny, make_data, tmp_path) -> None:
    data = make_data(16)
    whole, parts = Same(make_tiny()), Same(make_tiny())
    NormalTrainer(whole).fit(data, epochs=2, batch_size=8, progress=False)
    NormalTrainer(parts).fit(data, epochs=1, batch_size=8, out=tmp_path, progress=False)
    again = Same(make_tiny())
    NormalTrainer(again).fit(data, 2, batch_size=8, out=tmp_path, resume=True, progress=False)
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_labels_are_checked(make_tiny, make_data) -> None:
    x, y = make_data(8)
    trainer = NormalTrainer(Same(make_tiny()))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y + 4), batch_size=4)
    for data in ((x, y + 4), loader):
        with pytest.raises(InputError, match=r"labels must lie in 0\.\.3 for 4 classes"):
            trainer.fit(data, epochs=1, progress=False)
    with pytest.raises(InputError, match=r"training_step: labels must lie in 0\.\.3"):
        trainer.training_step(x, y + 4)
    loss = IntLoss(interpreter=few_points, **FEW)
    with pytest.raises(InputError, match=r"IntLoss: labels must lie in 0\.\.3"):
        loss(Same(make_tiny()), x, y + 4)


def test_the_loss_is_that_of_the_same_gap_classifier(make_tiny, make_data) -> None:
    x, y = make_data(8)
    models = (make_tiny(), Same(make_tiny()))
    one, other = (IntLoss(interpreter=few_points, **FEW)(model, x, y) for model in models)
    assert torch.allclose(one, other)


def test_far_takes_any_network(make_tiny, make_data) -> None:
    assert not isinstance(Same(make_tiny()), GapClassifier)
    trainer = Trainer(Same(make_tiny()), "adv-aat", **FEW)
    assert trainer.training_step(*make_data(8)).loss.isfinite()


class Attention(nn.Module):
    """A class-token transformer of one layer, on images 3 x 8 x 8."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fused = fused
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], dim=1)
        q, k, v = self.qkv(tokens).chunk(3, dim=2)
        if self.fused:
            mixed = nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])
            return self.head(mixed[:, 0, 0])
        return self.head(((q @ k.transpose(1, 2) / 8**0.5).softmax(dim=2) @ v)[:, 0])


@pytest.mark.parametrize("name", ["ig-norm", "int", "input-gradient", "aat", "r2et"])
def test_fused_attention_is_differentiated_twice(name: str) -> None:
    x, y = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    chosen = method(name, 1.0, interpreter=few_points if name == "int" else None)
    settings = FEW if chosen.inner is not None else {}
    gradients = []
    for fused in (True, False):
        model = Attention(fused)
        Trainer(model, chosen, **settings).training_step(x, y)
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.interop
def test_a_class_token_vit_of_timm_trains_by_int_with_integrated_gradients() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=4)
    x, y = torch.rand(8, 3, 32, 32), torch.arange(8) % 4
    settings = {**FEW, "interpreter": few_points, "lr": 1e-3}
    history = IntTrainer(model, **settings).fit((x, y), epochs=6, batch_size=8, progress=False)
    assert history[-1]["loss"] < history[0]["loss"]
