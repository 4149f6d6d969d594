"""Quantus gives the same stability scores for the same perturbed images."""

from __future__ import annotations

import sys
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from fastinterp import evaluation as E
from fastinterp.interpreters import CAM, upsample

pytestmark = pytest.mark.interop
SAMPLES = 5


@pytest.fixture(scope="module")
def quantus() -> Any:
    """Quantus; it imports scikit-image for segments that none of these metrics reads."""
    try:
        import skimage  # noqa: F401
    except ImportError:
        stub, segmentation = ModuleType("skimage"), ModuleType("skimage.segmentation")
        segmentation.slic = segmentation.felzenszwalb = None  # type: ignore[attr-defined]
        stub.segmentation = segmentation  # type: ignore[attr-defined]
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "skimage", stub)
            patch.setitem(sys.modules, "skimage.segmentation", segmentation)
            return pytest.importorskip("quantus")
    return pytest.importorskip("quantus")


@pytest.fixture
def measured(make_problem) -> dict[str, Any]:
    """A network, images, perturbed images, and what the network gives for them."""
    model, x, y = make_problem(7)
    noise = torch.rand((SAMPLES, *x.shape), generator=torch.Generator().manual_seed(3))
    x_adv = (x + 0.2 * (2 * noise - 1)).clamp(0, 1)
    with torch.no_grad():

        def look(images):
            return upsample(CAM(model)(images, y), (8, 8)), model(images), model.features(images)

        clean, moved = look(x), [look(each) for each in x_adv]
    stacked = [torch.stack(each) for each in zip(*moved, strict=True)]
    pairs = zip(clean, stacked, strict=True)
    return {"model": model, "x": x, "y": y, "x_adv": x_adv, "pairs": list(pairs)}


def theirs(metric: Any, found: dict[str, Any]) -> torch.Tensor:
    """The metric's scores, for the given perturbed images in turn."""
    model, x, y = found["model"], found["x"].numpy(), found["y"].numpy()
    queue = iter(found["x_adv"].numpy())
    metric.perturb_func = lambda arr, **_: next(queue).reshape(arr.shape)

    def explain(model, inputs, targets, **_):
        with torch.no_grad():
            maps = CAM(model)(torch.as_tensor(inputs), torch.as_tensor(targets))
            return upsample(maps, (8, 8)).numpy()  # Quantus wants maps of the images' size

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = metric(
            model=model,
            x_batch=x,
            y_batch=y,
            a_batch=None,
            explain_func=explain,
            channel_first=True,
        )
    assert next(queue, None) is None, "every perturbed image was used"
    return torch.as_tensor(np.asarray(scores, dtype=np.float64))


def test_sensitivity_and_lipschitz(quantus, measured) -> None:
    (maps, maps_adv), _, _ = measured["pairs"]
    x, x_adv = measured["x"], measured["x_adv"]
    how = {"nr_samples": SAMPLES, "normalise": False, "disable_warnings": True}
    for ours, metric in (
        (E.max_sensitivity(maps, maps_adv), quantus.MaxSensitivity(**how)),
        (E.average_sensitivity(maps, maps_adv), quantus.AvgSensitivity(**how)),
        (E.local_lipschitz(maps, maps_adv, x, x_adv), quantus.LocalLipschitzEstimate(**how)),
    ):
        assert torch.allclose(ours.double(), theirs(metric, measured), rtol=1e-5, atol=0), metric


def test_relative_stability(quantus, measured) -> None:
    (maps, maps_adv), logits, features = measured["pairs"]
    x, x_adv = measured["x"], measured["x_adv"]
    how = {
        "nr_samples": SAMPLES,
        "normalise": False,
        "disable_warnings": True,
        "return_nan_when_prediction_changes": False,
    }
    for ours, metric in (
        (
            E.relative_input_stability(maps, maps_adv, x, x_adv),
            quantus.RelativeInputStability(**how),
        ),
        (
            E.relative_output_stability(maps, maps_adv, *logits),
            quantus.RelativeOutputStability(**how),
        ),
        (
            E.relative_representation_stability(maps, maps_adv, *features),
            quantus.RelativeRepresentationStability(layer_names=["second"], **how),
        ),
    ):
        assert torch.allclose(ours.double(), theirs(metric, measured), rtol=1e-4, atol=0), metric
