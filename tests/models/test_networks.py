"""The three networks against an independent implementation, and what users rely on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from fastinterp import InputError, models
from fastinterp.models.layers import same_padding

MAKE = {"small": models.small, "pool": models.pool, "wresnet": models.wresnet}
NAMES = list(MAKE)

# What the paper's networks are, written down a second time: filters, kernels and strides.
WRESNET_FILTERS = [16] + 10 * [16] + 10 * [32] + 10 * [64]
WRESNET_STRIDES = [1] + 10 * [1] + [2] + 9 * [1] + [2] + 9 * [1]


def windows(x: np.ndarray, kernel: int, stride: int, fill: float) -> np.ndarray:
    """x [N, H, W, C] -> windows [N, h, w, C, kernel, kernel] with TensorFlow's 'SAME' padding."""
    pads = []
    for size in x.shape[1:3]:
        out = math.ceil(size / stride)
        total = max((out - 1) * stride + kernel - size, 0)
        pads.append((total // 2, total - total // 2))
    padded = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=fill)
    return sliding_window_view(padded, (kernel, kernel), (1, 2))[:, ::stride, ::stride]


def conv(x: np.ndarray, weight: Tensor, bias: Tensor, stride: int) -> np.ndarray:
    kernel = weight.shape[-1]
    product = np.einsum("nhwcij,ocij->nhwo", windows(x, kernel, stride, 0.0), weight.numpy())
    return product + bias.numpy()


def reference_features(name: str, model: models.GapClassifier, x: np.ndarray) -> np.ndarray:
    """x [N, H, W, C] -> A [N, h, w, K], in NumPy, channels last as in the release."""
    parameters = [p.detach() for n, p in model.named_parameters() if n.startswith("layers")]
    pairs = list(zip(parameters[::2], parameters[1::2], strict=True))
    if name == "pool":
        first = windows(conv(x, *pairs[0], 1), 2, 2, -np.inf).max((-1, -2))
        return windows(conv(np.maximum(first, 0), *pairs[1], 1), 2, 2, -np.inf).max((-1, -2))
    strides = [2, 2, 1] if name == "small" else WRESNET_STRIDES
    outputs = [conv(x, *pairs[0], strides[0])]
    for i, pair in enumerate(pairs[1:], start=1):
        out = conv(np.maximum(outputs[-1], 0), *pair, strides[i])
        if name == "wresnet" and i % 2 == 0:
            skip = outputs[i - 2]
            if strides[i - 1] == 2:
                skip = np.nanmean(windows(skip, 2, 2, np.nan), axis=(-1, -2))
            more = (out.shape[-1] - skip.shape[-1]) // 2
            out = out + np.pad(skip, [(0, 0), (0, 0), (0, 0), (more, more)])
        outputs.append(out)
    return outputs[-1]


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (9, 14), (11, 7)])
@pytest.mark.parametrize("name", NAMES)
def test_features_and_logits_match_an_independent_implementation(
    name: str, size: tuple[int, int]
) -> None:
    model = MAKE[name](3, 5, seed=1).double()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):  # they count too
                parameter += 0.1 * torch.randn_like(parameter)
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    expected = reference_features(name, model, x.permute(0, 2, 3, 1).numpy())
    assert expected.min() < 0  # no ReLU on the last map
    features = model.features(x)
    assert features.shape[2:] == tuple(math.ceil(n / 4) for n in size)
    np.testing.assert_allclose(
        features.detach().permute(0, 2, 3, 1).numpy(), expected, rtol=1e-9, atol=1e-9
    )
    logits = expected.mean((1, 2)) @ model.weight.detach().numpy().T
    np.testing.assert_allclose(model(x).detach().numpy(), logits, rtol=1e-9, atol=1e-9)


def test_wresnet_has_the_filters_and_strides_of_the_paper() -> None:
    model = models.wresnet(3, 10, seed=0)
    assert [layer.weight.shape[0] for layer in model.layers] == WRESNET_FILTERS
    assert [layer.stride for layer in model.layers] == WRESNET_STRIDES


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (28, 4, 2, (1, 1)),
        (32, 3, 2, (0, 1)),
        (5, 2, 2, (0, 1)),
        (7, 7, 1, (3, 3)),
        (4, 1, 2, (0, 0)),
    ],
)
def test_same_padding(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize("name", NAMES)
def test_initial_weights_are_normal_with_std_of_the_fan_in(name: str) -> None:
    model = MAKE[name](3, 100, seed=0)
    for key, parameter in model.named_parameters():
        if key.endswith("bias"):
            assert not parameter.any()
            continue
        expected = 1 / math.sqrt(parameter[0].numel())
        # Five standard errors of a sample's standard deviation.
        error = 5 / math.sqrt(2 * parameter.numel())
        assert parameter.std().item() == pytest.approx(expected, rel=error), key


def test_a_seed_gives_the_same_network_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = (models.small(seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.weight, other.weight)


def test_a_seed_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="seed must be a whole number, got 'a'"):
        models.small(seed="a")  # type: ignore[arg-type]


def test_without_a_seed_the_global_generator_decides() -> None:
    torch.manual_seed(5)
    first = models.pool()
    second = models.pool()
    torch.manual_seed(5)
    assert torch.equal(models.pool().weight, first.weight)
    assert not torch.equal(second.weight, first.weight)


@pytest.mark.parametrize("name", NAMES)
def test_build_makes_what_config_says(name: str) -> None:
    model = MAKE[name](2, 7, seed=0)
    assert model.config == {"name": name, "in_channels": 2, "num_classes": 7}
    again = models.build(model.config, seed=0)
    assert torch.equal(again.weight, model.weight)
    assert (again.num_classes, again.bias) == (7, None)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"name": "large", "in_channels": 1, "num_classes": 10}, "name must be one of .*small"),
        ({"name": "small"}, "in_channels"),
        ({"name": "small", "in_channels": 1, "num_classes": 10, "width": 2}, "width"),
        ({"name": "small", "in_channels": 0, "num_classes": 10}, "in_channels"),
        ({"name": "small", "in_channels": 1, "num_classes": 2.5}, "num_classes"),
        ({"name": ["small"], "in_channels": 1, "num_classes": 10}, "name"),
        (None, "None"),
    ],
)
def test_a_config_that_describes_nothing_is_refused(config: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        models.build(config)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_images_that_do_not_fit_are_refused(name: str) -> None:
    model = MAKE[name](3, 4, seed=0)
    for x, says in (
        (torch.rand(3, 28, 28), r"\[N, 3, H, W\], got shape \[3, 28, 28\]; one image"),
        (torch.rand(2, 1, 28, 28), r"\[N, 3, H, W\], got shape \[2, 1, 28, 28\]"),
        (torch.zeros(2, 3, 28, 28, dtype=torch.uint8), "divide 8-bit images by 255"),
        (torch.rand(2, 3, 28, 28).double(), "same dtype, got torch.float32 and torch.float64"),
    ):
        with pytest.raises(InputError, match=says):
            model(x)
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.rand(2, 3, 28, 28).bfloat16())


@pytest.mark.parametrize("name", NAMES)
def test_second_order_gradients_exist_and_are_right(name: str) -> None:
    model = MAKE[name](1, 3, seed=0).double()
    x = torch.rand(1, 1, 9, 9, dtype=torch.float64, requires_grad=True)

    def curved(x: Tensor) -> Tensor:
        return model(x).square().sum()

    assert torch.autograd.gradgradcheck(curved, (x,), fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_compiles_as_one_graph(name: str) -> None:
    model = MAKE[name](3, 10, seed=0)
    x = torch.rand(2, 3, 32, 32)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_changes_nothing(name: str) -> None:
    model = MAKE[name](3, 10, seed=0)
    x = torch.rand(2, 3, 32, 32)
    expected = model(x)
    model.to(memory_format=torch.channels_last)
    result = model(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("name", NAMES)
def test_half_types_and_empty_batches(name: str) -> None:
    model = MAKE[name](3, 10, seed=0).bfloat16()
    assert model(torch.rand(2, 3, 32, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert model(torch.rand(0, 3, 32, 32, dtype=torch.bfloat16)).shape == (0, 10)


@pytest.mark.cuda
@pytest.mark.parametrize("name", NAMES)
def test_a_seed_means_the_same_network_on_a_gpu(name: str) -> None:
    model = MAKE[name](3, 10, seed=0)
    with torch.device("cuda"):
        there = MAKE[name](3, 10, seed=0)
    assert there.device.type == "cuda"
    for a, b in zip(model.parameters(), there.parameters(), strict=True):
        assert torch.equal(a, b.cpu())
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(there.double()(x.cuda().double()).cpu(), model.double()(x.double()))
