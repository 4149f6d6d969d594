"""What every interpreter promises, whichever it is."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fastinterp._utils.errors import InputError
from fastinterp.interpreters import (
    CAM,
    RISE,
    FeatureInterpreter,
    GradCAM,
    GradCAMPlusPlus,
    Gradient,
    GuidedBackprop,
    IntegratedGradients,
    Interpreter,
    Repr,
    SmoothGrad,
    logits_and_maps,
)
from fastinterp.models.gap import GapClassifier

Make = Callable[[GapClassifier], Interpreter]

BY_CLASS: dict[str, Make] = {
    "cam": CAM,
    "gradcam": GradCAM,
    "gradcam++ paper": GradCAMPlusPlus,
    "gradcam++ standard": lambda model: GradCAMPlusPlus(model, "standard"),
    "gradient": Gradient,
    "guided": GuidedBackprop,
    "ig": lambda model: IntegratedGradients(model, steps=5),
    "ig softplus, chunked": lambda model: IntegratedGradients(
        model, steps=5, softplus=True, chunk_size=4
    ),
    "smoothgrad": lambda model: SmoothGrad(model, samples=4),
    "smoothgrad chunked": lambda model: SmoothGrad(model, samples=4, chunk_size=2),
    "rise": lambda model: RISE(model, masks=6, cells=3),
    "rise chunked": lambda model: RISE(model, masks=6, cells=3, chunk_size=2, score="logit"),
}
ALL: dict[str, Make] = {**BY_CLASS, "repr": Repr}

every = pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
every_by_class = pytest.mark.parametrize("make", BY_CLASS.values(), ids=BY_CLASS.keys())


@every
def test_is_an_interpreter(make: Make, relu_net: GapClassifier) -> None:
    assert isinstance(make(relu_net), Interpreter)


@every
@pytest.mark.parametrize("train", [False, True])
def test_leaves_the_network_alone(
    make: Make, relu_net: GapClassifier, images: Tensor, train: bool
) -> None:
    relu_net.train(train)
    before = copy.deepcopy(relu_net.state_dict())
    images.requires_grad_()
    make(relu_net)(images)
    assert relu_net.training is train
    assert images.grad is None
    assert all(parameter.grad is None for parameter in relu_net.parameters())
    assert all(parameter.requires_grad for parameter in relu_net.parameters())
    for module in relu_net.modules():
        for name, value in vars(module).items():
            assert "hooks" not in name or not value, name
    for name, value in relu_net.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.relu(torch.tensor(-1.0)) == 0


@every
def test_carries_a_graph_when_torch_would(
    make: Make, relu_net: GapClassifier, images: Tensor
) -> None:
    interpreter = make(relu_net)
    maps = interpreter(images)
    assert maps.requires_grad
    with torch.no_grad():
        without = interpreter(images)
    with torch.inference_mode():
        inference = interpreter(images)
        inside = interpreter(images.clone())  # an inference tensor
    for parameter in relu_net.parameters():
        parameter.requires_grad_(False)
    frozen = interpreter(images)
    for other in (without, inference, inside, frozen):
        assert not other.requires_grad
        torch.testing.assert_close(other.clone(), maps.detach(), rtol=1e-12, atol=1e-14)
    assert interpreter(images.requires_grad_()).requires_grad


@every_by_class
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_takes_classes_in_every_form(
    make: Make, mode: Callable, relu_net: GapClassifier, images: Tensor
) -> None:
    interpreter = make(relu_net)
    with mode():
        full = interpreter(images)
        assert full.shape[:2] == (3, 4)
        ids = torch.tensor([[3, 0], [1, 1], [2, 3]])
        rows = torch.arange(3)
        same = {"rtol": 1e-10, "atol": 1e-12}
        torch.testing.assert_close(interpreter(images, 2), full[:, 2:3], **same)
        torch.testing.assert_close(interpreter(images, [3, 1]), full[:, [3, 1]], **same)
        torch.testing.assert_close(interpreter(images, (0,)), full[:, :1], **same)
        torch.testing.assert_close(interpreter(images, ids), full[rows[:, None], ids], **same)
        torch.testing.assert_close(
            interpreter(images, ids[:, 0]), full[rows, ids[:, 0]][:, None], **same
        )


@every_by_class
@pytest.mark.parametrize(
    "classes",
    [
        4,
        -1,
        [],
        [0, 4],
        [0.5],
        "01",
        True,
        torch.tensor(1),
        torch.tensor([0, 1]),
        torch.tensor([0, 1, 4]),
        torch.tensor([0, 1, -1]),
        torch.tensor([0.0, 1.0, 2.0]),
        torch.zeros(3, 0, dtype=torch.int64),
        torch.zeros(3, 1, 1, dtype=torch.int64),
    ],
    ids=str,
)
def test_refuses_classes_that_are_none(
    make: Make, relu_net: GapClassifier, images: Tensor, classes: object
) -> None:
    with pytest.raises(InputError, match="class"):
        make(relu_net)(images, classes)


@every_by_class
def test_takes_integers_of_any_kind(make: Make, relu_net: GapClassifier, images: Tensor) -> None:
    interpreter = make(relu_net)
    with torch.no_grad():
        expected = interpreter(images, torch.tensor([3, 0, 1]))
        for dtype in (torch.int32, torch.uint8):
            ids = torch.tensor([3, 0, 1], dtype=dtype)
            assert torch.equal(interpreter(images, ids), expected)
        assert torch.equal(interpreter(images, np.int64(2)), interpreter(images, 2))
        assert torch.equal(interpreter(images, [np.int32(2)]), interpreter(images, [2]))
    with pytest.raises(InputError, match="array"):  # a class an image, or the same in every one?
        interpreter(images, np.array([3, 0, 1]))


@pytest.mark.parametrize("make", [CAM, GradCAM, GradCAMPlusPlus, Repr])
def test_class_activation_maps_need_a_gap_classifier(make: Make) -> None:
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(84, 4))
    with pytest.raises(InputError, match=r"GapClassifier, got Sequential; .*wrap, or take Integr"):
        make(plain)


@every
def test_the_network_itself_is_needed(make: Make, relu_net: GapClassifier) -> None:
    around = torch.nn.DataParallel(relu_net)
    with pytest.raises(InputError, match="got DataParallel; pass the network inside"):
        make(around)


@every
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x[0], r"images \[N, C, H, W\], got shape \[2, 7, 6\]; one image .*x\[None\]"),
        (lambda x: (255 * x).byte(), "floating-point tensor, got torch.uint8; divide"),
        (lambda x: x.numpy(), "floating-point tensor, got ndarray"),
        (lambda x: x.float(), "same dtype, got torch.float64 and torch.float32"),
        (lambda x: x.to("meta"), "same device, got cpu and meta"),
    ],
    ids=["one image", "bytes", "array", "dtype", "device"],
)
def test_refuses_images_that_are_none(
    make: Make, relu_net: GapClassifier, images: Tensor, change: Callable, says: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        make(relu_net)(change(images))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (GradCAMPlusPlus, {"variant": ["general"]}),
        (SmoothGrad, {"samples": [0], "noise": [-0.1, math.nan], "chunk_size": [0]}),
        (IntegratedGradients, {"steps": [0, 2.5], "chunk_size": [0], "beta": [0.0, math.nan]}),
        (IntegratedGradients, {"baseline": ["black"]}),
        (RISE, {"masks": [0], "cells": [0], "keep": [0.0, 1.5], "score": ["loss"]}),
        (RISE, {"chunk_size": [0]}),
    ],
)
def test_refuses_bad_settings(make: Callable, settings: dict, relu_net: GapClassifier) -> None:
    for name, values in settings.items():
        for value in values:
            with pytest.raises(InputError, match=name):
                make(relu_net, **{name: value})


@pytest.mark.parametrize("name", ["guided", "ig softplus, chunked"])
def test_says_when_there_is_no_relu(name: str, smooth: GapClassifier, images: Tensor) -> None:
    with pytest.raises(InputError, match="no ReLU"):
        BY_CLASS[name](smooth)(images)


@every
def test_batch_mates_do_not_change_a_map(
    make: Make, relu_net: GapClassifier, images: Tensor
) -> None:
    interpreter = make(relu_net)
    with torch.no_grad():
        together = interpreter(images)
        alone = torch.cat([interpreter(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


@every
def test_gives_the_same_map_twice(make: Make, relu_net: GapClassifier, images: Tensor) -> None:
    interpreter = make(relu_net)
    random_state = torch.get_rng_state()
    with torch.no_grad():
        assert torch.equal(interpreter(images), interpreter(images))
    assert torch.equal(torch.get_rng_state(), random_state)


@every
def test_serves_an_empty_batch(make: Make, relu_net: GapClassifier, images: Tensor) -> None:
    maps = make(relu_net)(images)
    assert make(relu_net)(images[:0]).shape == (0, *maps.shape[1:])


@every
def test_keeps_the_dtype(make: Make, relu_net: GapClassifier, images: Tensor) -> None:
    assert make(relu_net.float())(images.float()).dtype == torch.float32


# A ReLU's kinks have no second derivative. GuidedBackprop's rule is not a derivative at all.
SMOOTH = {
    name: make for name, make in ALL.items() if name not in ("guided", "ig softplus, chunked")
}


@pytest.mark.parametrize("make", SMOOTH.values(), ids=SMOOTH.keys())
def test_gradients_of_maps_by_images_and_parameters(
    make: Make, smooth: GapClassifier, images: Tensor
) -> None:
    interpreter = make(smooth)
    x = images[:2, :, :4, :4].clone().requires_grad_()
    classes = torch.tensor([[1, 0], [2, 3]])
    assert torch.autograd.gradcheck(lambda x: interpreter(x, classes), (x,))
    # gradcheck moves the parameters in place, the network's own tensors.
    parameters = (smooth.weight, smooth.get_parameter("first.weight"))
    assert torch.autograd.gradcheck(lambda *_: interpreter(x.detach(), classes), parameters)


TWICE = {name: make for name, make in SMOOTH.items() if name != "smoothgrad chunked"}


@pytest.mark.parametrize("make", TWICE.values(), ids=TWICE.keys())
def test_second_derivatives_of_maps(make: Make, smooth: GapClassifier, images: Tensor) -> None:
    interpreter = make(smooth)
    x = images[:2, :, :4, :4].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: interpreter(x, [1]), (x,), fast_mode=True)


@every_by_class
def test_logits_and_maps_agree_with_separate_calls(
    make: Make, relu_net: GapClassifier, images: Tensor
) -> None:
    interpreter = make(relu_net)
    logits, maps = logits_and_maps(interpreter, images, 1)
    assert torch.equal(logits, relu_net(images))
    assert torch.equal(maps, interpreter(images, 1))
    if isinstance(interpreter, FeatureInterpreter):
        relu_net.most_images = 0
        assert torch.equal(interpreter.from_features(relu_net.features(images), 1), maps)


@pytest.mark.cuda
@every
def test_gives_the_same_maps_on_a_gpu(make: Make, relu_net: GapClassifier, images: Tensor) -> None:
    classes = torch.tensor([[0, 3], [1, 1], [2, 0]])
    expected = make(relu_net)(images, classes).detach()
    maps = make(relu_net.cuda())(images.cuda(), classes.cuda())
    assert maps.is_cuda
    torch.testing.assert_close(maps.detach().cpu(), expected, rtol=1e-9, atol=1e-11)
    if make is not Repr:
        with pytest.raises(InputError, match="same device"):
            make(relu_net)(images.cuda(), classes)
