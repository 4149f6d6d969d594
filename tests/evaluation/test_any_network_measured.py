"""Measurements and pictures of networks that are no GapClassifier, and of functions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fastinterp._utils.errors import InputError
from fastinterp.attacks import AAI, ISA
from fastinterp.evaluation import (
    aai_sweep,
    audit,
    corruption_sweep,
    explain,
    overlay_maps,
    stability,
    sweep,
)
from fastinterp.interpreters import (
    CAM,
    RISE,
    Gradient,
    GuidedBackprop,
    IntegratedGradients,
    Repr,
    SmoothGrad,
)


class Same(nn.Module):
    """The function of a GapClassifier in a module that is none."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return logits


INTERPRETERS = {
    "gradient": Gradient,
    "smoothgrad": lambda model: SmoothGrad(model, samples=2),
    "ig": lambda model: IntegratedGradients(model, steps=3),
    "guided": GuidedBackprop,
    "rise": lambda model: RISE(model, masks=4, cells=3),
}


@pytest.mark.parametrize("protocol", ["paper", "best"])
def test_sweep_takes_any_network_and_a_function(protocol: str, make_problem) -> None:
    model, x, y = make_problem(12)
    settings = {"eps": [0.0, 0.05], "steps": 4, "protocol": protocol, "progress": False}
    expected = sweep(model, x, y, **settings)
    loader = [(x[:8], y[:8]), (x[8:], y[8:])]
    assert sweep(Same(model), x, y, **settings) == expected
    assert sweep(lambda images: model(images), x, y, **settings) == expected
    assert sweep(Same(model), iter(loader), **settings) == expected


def test_audit_and_corruptions_take_a_function(make_problem) -> None:
    model, x, y = make_problem(8)
    given = {"eps": 0.05, "steps": (1, 3), "progress": False}
    expected = audit(model, x, y, **given, transfer_from=model)
    assert audit(model.forward, x, y, **given, transfer_from=model.forward) == expected
    x = torch.nn.functional.interpolate(x, size=(28, 28))
    settings = {"attack": "jpeg-linf", "steps": 2, "progress": False}
    row = corruption_sweep(model, x, y, (y + 1) % 3, **settings)
    assert corruption_sweep(model.forward, x, y, (y + 1) % 3, **settings) == row


def test_what_does_not_fit_is_refused(make_problem, tmp_path) -> None:
    model, x, y = make_problem(4)
    with pytest.raises(InputError, match=r"labels must lie in 0\.\.2 for 3 classes"):
        sweep(Same(model), x, y + 1, eps=0.1)
    with pytest.raises(InputError, match="state needs a network"):
        sweep(model.forward, x, y, eps=0.1, state=tmp_path / "verdicts.json")
    with pytest.raises(InputError, match=r"model must be .* a function from images to logits"):
        sweep("resnet18", x, y, eps=0.1)
    with pytest.raises(InputError, match="same device"):
        Gradient(Same(model))(x.to("meta"))


@pytest.mark.parametrize("make", INTERPRETERS.values(), ids=INTERPRETERS.keys())
def test_map_attacks_and_stability(make, make_problem) -> None:
    gap, x, y = make_problem(6)
    found = []
    for model in (gap, Same(gap)):
        interpreter = make(model)
        row = aai_sweep(model, interpreter, x, y, eps=0.05, steps=2, hinge=1.0, progress=False)
        isa = ISA(model, interpreter, steps=2)(x[:3], y[:3], (y[:3] + 1) % 3, eps=0.2)
        x_adv = AAI(model, interpreter, 0.05, 0.02, 2)(x, y, torch.Generator().manual_seed(0))
        scores = stability(model, interpreter, x, y, samples=2, progress=False)
        found.append([row[0]["kendall_tau"], isa.x_adv, x_adv, *scores[:5]])
        is_gap = model is gap
        assert bool(scores.relative_representation_stability.isfinite().all()) == is_gap
    for one, other in zip(*found, strict=True):
        assert torch.allclose(torch.as_tensor(one), torch.as_tensor(other), rtol=1e-4, atol=1e-6)


def test_explanations_of_any_network_are_pictures(make_problem) -> None:
    model, x, y = make_problem(2, 3)
    found = explain(Same(model), x, y, eps=0.1, steps=1, classes=["cat", "dog", "owl"])
    interpreter = IntegratedGradients(model, steps=50)
    both = torch.stack([y, found.targets], dim=1)
    assert torch.allclose(found.maps, interpreter(x, both).sum(dim=2), atol=1e-6)
    assert found._repr_png_().startswith(b"\x89PNG")
    titles = [panel.get_title() for panel in found.picture().figure.axes]
    assert any("cat" in title or "dog" in title or "owl" in title for title in titles)
    with pytest.raises(InputError, match="Repr has no map for a class"):
        explain(model, x, y, eps=0.1, steps=1, interpreter=Repr(model))


def test_overlays_in_three_lines(make_problem, tmp_path) -> None:
    model, x, y = make_problem(3, 2)
    maps = CAM(model)(x, y)
    assert maps.requires_grad  # nobody has to detach them
    picture = overlay_maps(x, maps, titles=["true class"])
    assert picture._repr_png_().startswith(b"\x89PNG")
    picture.save(tmp_path / "maps.pdf")
    assert (tmp_path / "maps.pdf").stat().st_size > 0
    assert len(picture.figure.axes) == 3 * 2 + 1
    of_pixels = overlay_maps(x.requires_grad_(), Gradient(model)(x))
    assert len(of_pixels.figure.axes) == 3 * 4 + 1
    with pytest.raises(InputError, match="images must be"):
        overlay_maps(x, maps[:2])
    with pytest.raises(InputError, match="need 1 titles, got 2"):
        overlay_maps(x, maps, titles=["a", "b"])
