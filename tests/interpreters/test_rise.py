"""RISE against loops, and its masks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastinterp.interpreters import RISE
from fastinterp.models.gap import GapClassifier


@pytest.mark.parametrize("score", ["probability", "logit"])
@pytest.mark.parametrize("chunk_size", [1, 7, 512])
@torch.no_grad()
def test_is_the_masked_average(
    relu_net: GapClassifier, images: Tensor, score: str, chunk_size: int
) -> None:
    interpreter = RISE(relu_net, masks=9, cells=3, keep=0.4, score=score, chunk_size=chunk_size)
    (masks,) = interpreter.draw_masks(images, 9)
    expected = torch.zeros(3, 4, 7, 6, dtype=torch.float64)
    for n in range(3):
        for mask in masks:
            scores = relu_net(images[n : n + 1] * mask)[0]
            if score == "probability":
                scores = scores.softmax(dim=0)
            expected[n] += scores[:, None, None] * mask / (9 * 0.4)
    torch.testing.assert_close(interpreter(images), expected)
    assert relu_net.most_images <= chunk_size


@pytest.mark.parametrize("size", [(28, 28), (7, 6), (5, 31), (1, 1)])
def test_masks(relu_net: GapClassifier, size: tuple[int, int]) -> None:
    x = torch.zeros(1, 2, *size)
    (masks,) = RISE(relu_net, masks=2000, cells=4, keep=0.3).draw_masks(x, 2000)
    assert masks.shape == (2000, *size)
    assert masks.min() >= 0 and masks.max() <= 1
    # Every pixel is visible with probability keep; 2,000 masks leave a deviation of about 0.01.
    assert (masks.mean(dim=0) - 0.3).abs().max() < 0.05
    pieces = torch.cat(list(RISE(relu_net, masks=2000, cells=4, keep=0.3).draw_masks(x, 77)))
    assert torch.equal(pieces, masks)


@torch.no_grad()
def test_with_nothing_masked_the_map_is_the_score(relu_net: GapClassifier, images: Tensor) -> None:
    maps = RISE(relu_net, masks=3, keep=1.0)(images)
    scores = relu_net(images).softmax(dim=1)
    torch.testing.assert_close(maps, scores[:, :, None, None].expand_as(maps))


@torch.no_grad()
def test_finds_the_pixels_that_matter() -> None:
    class Corner(GapClassifier):
        """Class 0 is the brightness of the lower right corner."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.tensor([[5.0], [-5.0]])
            self.bias = None

        def features(self, x: Tensor) -> Tensor:
            return x[:, :, 8:, 8:].contiguous()

    maps = RISE(Corner(), masks=2000, cells=4, score="logit")(torch.ones(1, 1, 12, 12), 0)
    inside, outside = maps[0, 0, 8:, 8:], maps[0, 0, :6, :6]
    assert inside.min() > outside.max()
