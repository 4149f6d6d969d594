"""Integrated gradients against eq. (2), its completeness, and the memory it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, jacrev
from torch.nn import functional as F

from fastinterp import models
from fastinterp._utils.errors import InputError
from fastinterp.interpreters import IntegratedGradients, integrated_gradients
from fastinterp.models.gap import GapClassifier


def by_loops(model: GapClassifier, start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Eq. (2), image by image and step by step, with forward-over-nothing Jacobians."""
    maps = []
    for a, x in zip(start, end, strict=True):
        total = torch.zeros(model.num_classes, *x.shape, dtype=x.dtype)
        for i in range(1, steps + 1):
            total += jacrev(lambda z: model(z[None])[0])(a + i / steps * (x - a)).detach()
        maps.append((x - a) * total / steps)
    return torch.stack(maps)


@pytest.mark.parametrize("chunk_size", [1, 2, 4, 7, 512])
def test_is_equation_2(relu_net: GapClassifier, images: Tensor, chunk_size: int) -> None:
    interpreter = IntegratedGradients(relu_net, steps=6, chunk_size=chunk_size)
    expected = by_loops(relu_net, torch.zeros_like(images), images, 6)
    torch.testing.assert_close(interpreter(images).detach(), expected)


def test_baseline_may_be_a_number_or_a_tensor(smooth: GapClassifier, images: Tensor) -> None:
    grey = torch.full_like(images, 0.4)
    expected = by_loops(smooth, grey, images, 3)
    for baseline in (0.4, grey[0], torch.full((2, 1, 1), 0.4), grey):
        maps = IntegratedGradients(smooth, 3, baseline)(images)
        torch.testing.assert_close(maps.detach(), expected, rtol=1e-6, atol=1e-9)


def test_path_between_two_inputs(smooth: GapClassifier, images: Tensor) -> None:
    start = torch.rand_like(images)
    maps = IntegratedGradients(smooth, 4).between(start, images, [1]).detach()
    torch.testing.assert_close(maps, by_loops(smooth, start, images, 4)[:, [1]])


def test_is_complete_and_the_error_shrinks_with_steps(
    smooth: GapClassifier, images: Tensor
) -> None:
    start = torch.rand_like(images)
    with torch.no_grad():
        difference = smooth(images) - smooth(start)
        errors = []
        for steps in (50, 100, 200):
            maps = IntegratedGradients(smooth, steps).between(start, images)
            errors.append((maps.flatten(2).sum(dim=2) - difference).abs().max().item())
    assert errors[2] < 1e-3 * difference.abs().max().item()
    # A right Riemann sum of a smooth function: the error halves when the steps double.
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("softplus", [False, True])
@torch.no_grad()
def test_is_complete_on_a_released_network(shared: Path, softplus: bool) -> None:
    model = models.load(shared / "networks" / "mnist_smallgap_int_100.pkl").double()
    x = torch.rand(1, 1, 28, 28, dtype=torch.float64)
    interpreter = IntegratedGradients(model, steps=200, softplus=softplus)
    difference = interpreter.logits(x) - interpreter.logits(torch.zeros_like(x))
    sums = interpreter(x).flatten(2).sum(dim=2)
    assert (sums - difference).abs().max() < 0.01 * difference.abs().max()


def test_softplus_takes_the_place_of_relu(relu_net: GapClassifier, images: Tensor) -> None:
    interpreter = IntegratedGradients(relu_net, 3, softplus=True, beta=2.0)
    plain = IntegratedGradients(relu_net, 3)(images).detach()
    softened = interpreter(images).detach()
    assert torch.equal(IntegratedGradients(relu_net, 3)(images).detach(), plain)
    relu_net.activation = lambda value: F.softplus(value, beta=2.0)
    expected = IntegratedGradients(relu_net, 3)(images).detach()
    torch.testing.assert_close(softened, expected)
    assert not torch.allclose(softened, plain)


def test_softplus_maps_are_differentiable(relu_net: GapClassifier, images: Tensor) -> None:
    x = images[:2, :, :4, :4].clone().requires_grad_()
    for chunk_size in (2, 512):
        interpreter = IntegratedGradients(relu_net, 3, softplus=True, chunk_size=chunk_size)
        assert torch.autograd.gradcheck(lambda x: interpreter(x, [2]), (x,))  # noqa: B023


def test_path_is_differentiable_by_both_ends(smooth: GapClassifier, images: Tensor) -> None:
    end = images[:2, :, :4, :4].clone().requires_grad_()
    start = torch.rand_like(end).requires_grad_()
    for chunk_size in (2, 512):
        interpreter = IntegratedGradients(smooth, 3, chunk_size=chunk_size)
        assert torch.autograd.gradcheck(
            lambda a, b: interpreter.between(a, b, [0]),  # noqa: B023
            (start, end),
        )


@pytest.mark.parametrize("grad", [False, True])
def test_passes_stay_within_the_chunk(relu_net: GapClassifier, images: Tensor, grad: bool) -> None:
    for chunk_size in (2, 4, 100):
        relu_net.most_images = 0
        with torch.set_grad_enabled(grad):
            maps = IntegratedGradients(relu_net, 10, chunk_size=chunk_size)(images, [0])
            if grad:
                maps.square().sum().backward()
        assert 0 < relu_net.most_images <= chunk_size


def test_chunks_keep_no_graph(smooth: GapClassifier, images: Tensor) -> None:
    """What the maps hold on to for their backward pass does not grow with the steps."""

    def convolutions(steps: int, chunk_size: int) -> int:
        maps = IntegratedGradients(smooth, steps, chunk_size=chunk_size)(images, [0])
        reached, todo = set(), [maps.grad_fn]
        while todo:
            node = todo.pop()
            if node is not None and node not in reached:
                reached.add(node)
                todo += [before for before, _ in node.next_functions]
        return sum("Convolution" in node.name() for node in reached)

    assert convolutions(4, chunk_size=512) > 0
    assert convolutions(4, chunk_size=3) == convolutions(40, chunk_size=3) == 0


def test_chunks_give_the_same_gradients(smooth: GapClassifier, images: Tensor) -> None:
    def gradients(chunk_size: int) -> list[Tensor]:
        x = images.clone().requires_grad_()
        maps = IntegratedGradients(smooth, 5, chunk_size=chunk_size)(x, [0, 2])
        # A shift of the last feature maps or of the logits moves no gradient.
        shifts = {"bias", "second.bias"}
        wanted = [each for name, each in smooth.named_parameters() if name not in shifts]
        return list(torch.autograd.grad(maps.pow(3).sum(), [x, *wanted]))

    for one, other in zip(gradients(512), gradients(4), strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other)


def test_chunks_refuse_what_they_cannot_do(smooth: GapClassifier, images: Tensor) -> None:
    x = images.clone().requires_grad_()
    maps = IntegratedGradients(smooth, 5, chunk_size=4)(x, [0])
    (grad,) = torch.autograd.grad(maps.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()

    class Around(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = smooth

        def forward(self, x: Tensor) -> Tensor:
            return IntegratedGradients(self.model, 5, chunk_size=4)(x, [0])

    other = {"model.weight": torch.randn_like(smooth.weight).requires_grad_()}
    maps = functional_call(Around(), other, (images,))
    with pytest.raises(RuntimeError, match="exchanged"):
        maps.sum().backward()


def test_of_a_loss_with_labels(smooth: GapClassifier, images: Tensor) -> None:
    """The regulariser of IG-Norm: integrated gradients of the cross-entropy along x to x'."""
    labels = torch.tensor([1, 0, 3])
    x_adv = images + 0.1 * torch.randn_like(images)
    maps = integrated_gradients(
        lambda points, rows: F.cross_entropy(
            smooth(points), labels[rows], reduction="none"
        ).unsqueeze(1),
        images,
        x_adv,
        400,
        chunk_size=50,
        module=smooth,
    )
    assert maps.shape == (3, 1, 2, 7, 6)
    before, after = (F.cross_entropy(smooth(x), labels, reduction="none") for x in (images, x_adv))
    torch.testing.assert_close(maps.flatten(1).sum(1), after - before, rtol=1e-2, atol=1e-4)
    maps.abs().sum().backward()
    assert smooth.weight.grad is not None and smooth.weight.grad.abs().sum() > 0


def test_refuses_paths_that_do_not_fit(smooth: GapClassifier, images: Tensor) -> None:
    with pytest.raises(InputError, match="baseline"):
        IntegratedGradients(smooth, 3, torch.zeros(5))(images)
    with pytest.raises(InputError, match="one shape"):
        IntegratedGradients(smooth, 3).between(images[:1], images)
