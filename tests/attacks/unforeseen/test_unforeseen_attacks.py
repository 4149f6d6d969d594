"""What holds for all five attacks: the call, the range, the randomness, what they leave behind."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastinterp import InputError
from fastinterp.attacks import (
    JPEG,
    CrossEntropy,
    Elastic,
    Fog,
    Gabor,
    Margin,
    Outputs,
    SeededStart,
    Snow,
    ascend,
)

MAKE: dict[str, Callable[..., object]] = {
    "jpeg-linf": lambda model, **kw: JPEG(model, norm="linf", **kw),
    "jpeg-l2": lambda model, **kw: JPEG(model, norm="l2", **kw),
    "jpeg-l1": lambda model, **kw: JPEG(model, norm="l1", **kw),
    "gabor": Gabor,
    "snow": Snow,
    "fog": Fog,
    "elastic": Elastic,
}
SHAPES = [(3, 32, 32), (1, 28, 28), (3, 21, 18)]
every_attack = pytest.mark.parametrize("name", MAKE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@every_attack
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_call_that_users_know(make_net, make_images, name, shape, dtype) -> None:
    model, x = make_net(shape[0], dtype), make_images(3, *shape, dtype=dtype)
    y, before = torch.tensor([0, 1, 2]), x.clone()
    x_adv = MAKE[name](model, steps=3)(x, y, generator=seeded())
    assert x_adv.shape == x.shape and x_adv.dtype == dtype
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert not torch.equal(x_adv, x) and torch.equal(x, before)
    assert not x_adv.requires_grad
    assert all(p.grad is None for p in model.parameters())


@every_attack
def test_a_generator_decides(make_net, make_images, name) -> None:
    model, x = make_net(), make_images(2, 3, 16, 16)
    y = torch.tensor([0, 1])
    attack = MAKE[name](model, steps=2, generator=seeded(5))
    first, second = attack(x, y), attack(x, y)
    assert not torch.equal(first, second)
    assert torch.equal(attack(x, y, generator=seeded(5)), first)
    # Without one, torch's own.
    torch.manual_seed(3)
    unseeded = MAKE[name](model, steps=2)(x, y)
    torch.manual_seed(3)
    assert torch.equal(MAKE[name](model, steps=2)(x, y), unseeded)


@every_attack
def test_images_of_one_batch_get_different_draws(make_net, make_images, name) -> None:
    x = make_images(1, 3, 16, 16).repeat(2, 1, 1, 1)
    x_adv = MAKE[name](make_net(), steps=0)(x, torch.tensor([0, 0]), generator=seeded())
    assert not torch.allclose(x_adv[0], x_adv[1])


@every_attack
@pytest.mark.parametrize("keep", ["last", "first_fooled", "best"])
def test_an_image_does_not_depend_on_its_batch(make_net, make_images, name, keep) -> None:
    model, x = make_net(), make_images(5, 3, 16, 16)
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 4  # fooled from the start: it leaves the batch first
    attack = MAKE[name](model, steps=4, keep=keep)
    together = attack(x, y, generator=seeded())
    generator = seeded()  # serves the same images in the same order, in smaller batches
    parts = [attack(x[rows], y[rows], generator=generator) for rows in (slice(0, 2), slice(2, 5))]
    generator = seeded()
    alone = [attack(x[[n]], y[[n]], generator=generator) for n in range(5)]
    assert torch.allclose(together, torch.cat(parts), rtol=0, atol=1e-9)
    assert torch.allclose(together, torch.cat(alone), rtol=0, atol=1e-9)


@every_attack
def test_the_state_alone_carries_the_draws(make_net, make_images, name) -> None:
    """Evaluation starts each image with a seed of its own and puts the states together."""
    model, x = make_net(), make_images(3, 3, 16, 16)
    y, threat = model(x).argmax(1), MAKE[name](model, steps=4).threat
    one = ascend(model, SeededStart(threat, [7, 8, 9]), CrossEntropy(), x, y, 4, random_start=True)
    order = torch.tensor([2, 0])
    start = SeededStart(threat, [9, 7])
    other = ascend(model, start, CrossEntropy(), x[order], y[order], 4, random_start=True)
    assert torch.allclose(one[order], other, rtol=0, atol=1e-9)


@every_attack
@pytest.mark.parametrize("targeted", [False, True])
def test_the_loss_moves_the_right_way(make_net, make_images, name, targeted: bool) -> None:
    model, x = make_net(), make_images(24, 3, 16, 16)
    y = (model(x).argmax(1) + targeted) % 4
    settings: dict[str, object] = {"targeted": targeted}
    if name in (eps := {"gabor": 20.0, "fog": 100.0, "snow": 1.0}):
        settings["eps"] = eps[name]
    attacks = (MAKE[name](model, steps=steps, **settings) for steps in (0, 12))
    before, after = (F.cross_entropy(model(a(x, y, generator=seeded())), y) for a in attacks)
    assert after < before if targeted else after > before


@every_attack
def test_best_and_other_objectives(make_net, make_images, name) -> None:
    model, x = make_net(), make_images(8, 3, 16, 16)
    y = model(x).argmax(1)
    value = {}
    for keep in ("last", "best"):
        attack = MAKE[name](model, steps=5, keep=keep, objective=Margin())
        x_adv = attack(x, y, generator=seeded())
        value[keep] = Margin().prepare(Outputs(model, x), y)(Outputs(model, x_adv))
    assert (value["best"] >= value["last"] - 1e-12).all()


@every_attack
@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_callers_without_autograd(make_net, make_images, name, around) -> None:
    model, x, y = make_net(), make_images(2, 3, 16, 16), torch.tensor([0, 1])
    attack = MAKE[name](model, steps=2)
    with around():
        inside = attack(x.clone(), y.clone(), generator=seeded())
    assert torch.equal(inside, attack(x, y, generator=seeded()))


@every_attack
def test_no_images(make_net, make_images, name) -> None:
    x = make_images(1, 3, 16, 16)[:0]
    assert MAKE[name](make_net(), steps=2)(x, torch.zeros(0).long()).shape == x.shape


@every_attack
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": math.nan}, "eps must be a finite number >= 0"),
        ({"eps": True}, "eps must be a number"),
        ({"step_size": math.inf}, "step_size must be a finite|leave step_size out"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"steps": "3"}, "steps must be a whole number"),
        ({"objective": "ce"}, "objective must be an Objective"),
        ({"generator": 3}, "generator must be a torch.Generator"),
        ({"step_size": 0.0}, "step_size must be above 0|leave step_size out"),
        ({"keep": "worst"}, "keep must be one of"),
    ],
)
def test_bad_settings_are_refused(make_net, name, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MAKE[name](make_net(), **settings)


@every_attack
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x * 255, y), r"pixels must lie in \[0, 1\]"),
        (lambda x, y: (x, y + 3), r"labels must lie in 0\.\.3"),
    ],
)
def test_bad_batches_are_refused(make_net, make_images, name, change, message: str) -> None:
    x, y = change(make_images(2, 3, 16, 16), torch.tensor([0, 1]))
    with pytest.raises(InputError, match=message):
        MAKE[name](make_net(), steps=1)(x, y)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("jpeg-linf", (2, 16, 16), "1 or 3 channels, got 2"),
        ("snow", (4, 16, 16), "1 or 3 channels, got 4"),
        ("elastic", (3, 1, 16), "at least 2x2 pixels"),
        *((name, (16, 16), r"images \[N, C, H, W\]") for name in MAKE),
        *((name, (3, 0, 16), "at least|must have") for name in MAKE),
    ],
)
def test_images_that_a_method_does_not_allow(make_images, name, shape, message: str) -> None:
    threat = MAKE[name](nn.Identity()).threat
    with pytest.raises(InputError, match=message):
        threat.init(make_images(2, *shape), True, None)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (name, shape)
        for name in MAKE
        for shape in [(1, 1, 2), (3, 5, 3), (3, 7, 40), (3, 224, 150)]
        if not (name == "elastic" and 1 in shape[1:])
    ],
)
def test_odd_sizes(make_images, name, shape) -> None:
    x = make_images(2, *shape)
    threat = MAKE[name](nn.Identity(), steps=4).threat
    z = threat.init(x, True, seeded()).requires_grad_()
    x_adv = threat.render(x, z)
    (grad,) = torch.autograd.grad(x_adv.square().sum(), z)
    again = threat.render(x, threat.step(x, z.detach(), grad))
    for images in (x_adv, again):
        assert images.shape == x.shape and images.isfinite().all()
        assert images.min() >= 0 and images.max() <= 1


@every_attack
@pytest.mark.parametrize("channels", [1, 3])
def test_size_zero(make_images, name, channels: int) -> None:
    x = make_images(2, channels, 16, 16)
    threat = MAKE[name](nn.Identity(), eps=0.0).threat
    x_adv = threat.render(x, threat.init(x, True, seeded()))
    if name == "snow":  # the paleness stays
        assert (x_adv >= x - 1e-12).all()
    elif name.startswith("jpeg") and channels == 3:  # the coarser chroma stays
        luminance = torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype).view(1, 3, 1, 1)
        assert (x_adv - x).abs().max() > 0.01
        dull = 0.5 + 0.2 * (x - 0.5)  # none of it is clipped
        shown = threat.render(dull, threat.init(dull, True, seeded()))
        assert torch.allclose((shown * luminance).sum(1), (dull * luminance).sum(1))
    else:
        assert torch.allclose(x_adv, x, rtol=0, atol=1e-12)


@pytest.mark.cuda
@every_attack
def test_a_cpu_generator_gives_the_same_start_everywhere(make_images, name) -> None:
    threat, x = MAKE[name](nn.Identity()).threat, make_images(3, 3, 16, 16, dtype=torch.float32)
    here, there = (threat.init(x.to(device), True, seeded()) for device in ("cpu", "cuda"))
    assert torch.allclose(here, there.cpu(), rtol=1e-5, atol=0)
    shown = threat.render(x.cuda(), there)
    assert shown.device.type == "cuda" and shown.isfinite().all()


def test_published_settings() -> None:
    model = nn.Identity()
    assert JPEG(model).threat.ball.eps == 0.25
    assert JPEG(model, norm="l2").threat.ball.eps == 8
    assert JPEG(model, norm="l1").threat.ball.eps == 256
    for make, eps in ((Gabor, 400), (Snow, 2), (Fog, 2048)):
        attack = make(model)
        assert (attack.steps, attack.threat.eps) == (200, eps)
        assert attack.threat.step_size == pytest.approx(eps / math.sqrt(200))
        assert make(model, eps=5.0, steps=25).threat.step_size == pytest.approx(1.0)
    assert JPEG(model, 0.5, "linf", 25).threat.ball.step_size == pytest.approx(0.1)


def test_table_5_on_a_few_images(shared) -> None:
    """JPEG in l_inf, the cell where Int stands furthest above Normal: 0.000 and 0.440."""
    from fastinterp import data, models
    from fastinterp.evaluation import paper_selection

    test = data.load("cifar10", root=shared / "data")
    index, offset = (each[:40] for each in paper_selection(len(test)))
    x, y = test.float(index), test.labels[index]
    accuracy = {}
    for name in ("normal", "int"):
        model = models.load(shared / "networks" / f"cifar_smallgap_{name}_200.pkl")
        attack = JPEG(model, norm="linf", targeted=True, generator=seeded())
        x_adv = attack(x, (y + offset) % 10)
        accuracy[name] = float((model(x_adv).argmax(1) == y).float().mean())
    assert accuracy["normal"] == 0
    assert accuracy["int"] > 0.3
