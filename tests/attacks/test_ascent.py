"""The loop against independent ones, and what it leaves behind: nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastinterp import InputError
from fastinterp.attacks import (
    CrossEntropy,
    Discrepancy,
    IGNorm,
    L1Ball,
    L2Ball,
    LinfBall,
    Margin,
    Objective,
    Outputs,
    ascend,
)

EPS, SIZE, STEPS = 0.2, 0.05, 6


def linf_loop(model: nn.Module, x: Tensor, y: Tensor, keep: list[Tensor] | None = None) -> Tensor:
    """Madry et al.'s loop, one image at a time."""
    rows = []
    for image, label in zip(x, y, strict=True):
        z = image.clone()
        path = [z]
        for _ in range(STEPS):
            z = z.detach().requires_grad_()
            loss = nn.functional.cross_entropy(model(z[None]), label[None])
            (grad,) = torch.autograd.grad(loss, z)
            z = torch.clamp(z + SIZE * grad.sign(), image - EPS, image + EPS).clamp(0, 1).detach()
            path.append(z)
        rows.append(z)
        if keep is not None:
            keep.append(torch.stack(path))
    return torch.stack(rows)


def l2_loop(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    rows = []
    for image, label in zip(x, y, strict=True):
        z = image.clone()
        for _ in range(STEPS):
            z = z.detach().requires_grad_()
            (grad,) = torch.autograd.grad(
                nn.functional.cross_entropy(model(z[None]), label[None]), z
            )
            delta = z.detach() + SIZE * grad / grad.norm() - image
            if delta.norm() > 0.12:
                delta = 0.12 * delta / delta.norm()
            z = (image + delta).clamp(0, 1)
        rows.append(z)
    return torch.stack(rows)


def test_linf_against_an_independent_loop(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    x_adv = ascend(model, LinfBall(EPS, SIZE), CrossEntropy(), x, y, STEPS)
    assert torch.allclose(x_adv, linf_loop(model, x, y), rtol=0, atol=1e-12)
    assert not x_adv.requires_grad


def test_l2_against_an_independent_loop(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    x_adv = ascend(model, L2Ball(0.12, SIZE), CrossEntropy(), x, y, STEPS)
    assert torch.allclose(x_adv, l2_loop(model, x, y), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("threat", "objective"),
    [
        (LinfBall(0.1, 0.03), Discrepancy()),
        (L1Ball(1.0, 0.3), CrossEntropy()),
        (L2Ball(0.5, 0.1), Margin()),
        (LinfBall(0.1, 0.03), IGNorm()),
        (LinfBall(0.1, 0.03), CrossEntropy() + 0.01 * Discrepancy(units="release")),
    ],
)
def test_climbs(make_tiny, batch, threat, objective: Objective) -> None:
    model, (x, y) = make_tiny(), batch
    x_adv = ascend(
        model, threat, objective, x, y, 15, random_start=True, generator=torch.Generator()
    )
    value = objective.prepare(Outputs(model, x).detach(), y)
    assert (value(Outputs(model, x_adv)) > value(Outputs(model, x))).all()


def test_the_input_is_not_written_to(make_tiny, batch) -> None:
    x, y = batch
    before = x.clone()
    ascend(make_tiny(), LinfBall(EPS, SIZE), CrossEntropy(), x, y, STEPS)
    assert torch.equal(x, before)


class WithModes(nn.Module):
    """A network whose answer depends on its mode, and which can be told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.frozen = nn.Dropout(0.5)
        self.linear = nn.Linear(36, 4)
        self.fail = False
        self.frozen.eval()

    def forward(self, x: Tensor) -> Tensor:
        if self.fail:
            raise RuntimeError("no more")
        assert not self.training
        return self.linear(self.frozen(self.norm(x)).flatten(1))


@pytest.mark.parametrize("fail", [False, True])
def test_modes_gradients_and_buffers_are_left_alone(batch, fail: bool) -> None:
    x, y = batch
    model = WithModes().double()
    model.fail = fail
    model.linear.bias.requires_grad_(False)
    model.linear.weight.grad = torch.full_like(model.linear.weight, 7.0)
    buffers = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    assert modes == [True, True, False, True]
    if fail:
        with pytest.raises(RuntimeError, match="no more"):
            ascend(model, LinfBall(EPS, SIZE), CrossEntropy(), x, y, 2)
    else:
        ascend(model, LinfBall(EPS, SIZE), CrossEntropy(), x, y, 2)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, buffers[k]) for k, v in model.state_dict().items())
    assert (model.linear.weight.grad == 7).all()
    assert model.norm.weight.grad is None and model.linear.bias.grad is None
    assert not model.linear.bias.requires_grad and model.linear.weight.requires_grad


@pytest.mark.parametrize("objective", [CrossEntropy(), Discrepancy(), Margin(), IGNorm()])
@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("keep", ["last", "first_fooled", "best"])
def test_callers_without_autograd(make_tiny, batch, objective, around: Callable, keep) -> None:
    model, (x, y) = make_tiny(), batch
    threat = LinfBall(EPS, SIZE)
    expected = ascend(model, threat, objective, x, y, 3, keep=keep)
    with around():
        x_adv = ascend(model, threat, objective, x.clone(), y.clone(), 3, keep=keep)
        assert not torch.is_grad_enabled()
    assert torch.equal(x_adv, expected)
    assert not x_adv.is_inference()


def test_autocast_does_not_reach_the_loop(make_tiny, batch) -> None:
    x, y = batch[0].float(), batch[1]
    model = make_tiny(torch.float32)
    expected = ascend(model, LinfBall(EPS, SIZE), Discrepancy(), x, y, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(x).dtype == torch.bfloat16
        x_adv = ascend(model, LinfBall(EPS, SIZE), Discrepancy(), x, y, 3)
    assert torch.equal(x_adv, expected)


def test_an_image_does_not_depend_on_its_batch(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    for objective in (CrossEntropy(), Margin(), CrossEntropy() + Discrepancy()):
        for keep in ("last", "first_fooled", "best"):
            together = ascend(model, LinfBall(EPS, SIZE), objective, x, y, STEPS, keep=keep)
            alone = [
                ascend(model, LinfBall(EPS, SIZE), objective, x[[n]], y[[n]], STEPS, keep=keep)
                for n in range(len(x))
            ]
            assert torch.allclose(together, torch.cat(alone), rtol=0, atol=1e-10)


@pytest.mark.parametrize("targeted", [False, True])
def test_first_fooled(make_tiny, batch, targeted: bool) -> None:
    model, (x, y) = make_tiny(), batch
    y = model(x).argmax(1)  # nobody is fooled at the start ...
    y[0] = (y[0] + 1) % 4  # ... but one
    objective, eps, size = CrossEntropy(), EPS, SIZE
    if targeted:
        y = torch.full_like(y, int(model(x).mean(0).argsort()[-2]))
        objective, eps, size = CrossEntropy(targeted=True), 0.5, 0.1
    threat = LinfBall(eps, size)
    x_adv = ascend(model, threat, objective, x, y, STEPS, keep="first_fooled", targeted=targeted)
    iterates = [ascend(model, threat, objective, x, y, k) for k in range(STEPS + 1)]
    hit = torch.stack([model(z).argmax(1) == y for z in iterates])
    fooled = hit if targeted else ~hit
    first = [int(f.nonzero()[0]) if f.any() else STEPS for f in fooled.T]
    assert len(set(first)) > 2, "the test means little if all fall at the same step"
    for n, step in enumerate(first):
        assert torch.allclose(x_adv[n], iterates[step][n], rtol=0, atol=1e-12)


def test_fooled_images_leave_the_batch(make_tiny, batch) -> None:
    model, (x, _) = make_tiny(), batch
    y = (model(x).argmax(1) + 1) % 4
    model.calls = 0
    x_adv = ascend(model, LinfBall(EPS, SIZE), CrossEntropy(), x, y, 50, keep="first_fooled")
    assert torch.equal(x_adv, x)
    assert model.calls == 1


def test_best_keeps_the_highest_value(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    threat = LinfBall(EPS, 0.15)  # large steps, so that the last iterate need not be the highest

    def margin(x_adv: Tensor) -> Tensor:
        return Margin().prepare(Outputs(model, x), y)(Outputs(model, x_adv))

    margins = torch.stack([margin(ascend(model, threat, Margin(), x, y, k)) for k in range(9)])
    assert (margins.max(dim=0).values > margins[-1]).any()
    x_adv = ascend(model, threat, Margin(), x, y, 8, keep="best")
    assert torch.allclose(margin(x_adv), margins.max(dim=0).values)


def test_one_pass_a_step_and_none_for_given_outputs(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    clean = Outputs(model, x)
    _ = clean.features
    model.calls = 0
    shared = ascend(model, LinfBall(EPS, SIZE), Discrepancy(), x, y, 5, clean=clean)
    assert model.calls == 5
    own = ascend(model, LinfBall(EPS, SIZE), Discrepancy(), x, y, 5)
    assert model.calls == 5 + 6
    assert torch.equal(shared, own)


def test_no_steps_and_no_images(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    assert torch.equal(ascend(model, LinfBall(EPS, SIZE), CrossEntropy(), x, y, 0), x)
    for keep in ("last", "first_fooled", "best"):
        for objective in (CrossEntropy(), Discrepancy(), IGNorm()):
            empty = ascend(model, LinfBall(EPS, SIZE), objective, x[:0], y[:0], 2, keep=keep)
            assert empty.shape == (0, 1, 6, 6)


def test_unknown_keep_is_refused(make_tiny, batch) -> None:
    with pytest.raises(InputError, match="keep must be one of"):
        ascend(make_tiny(), LinfBall(EPS, SIZE), CrossEntropy(), *batch, 2, keep="worst")
