"""The authors' networks: read safely, recognised, and as accurate as the paper says."""

from __future__ import annotations

import io
import os
import pickle
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastinterp import InputError, data, models

CLEAN = [  # table 3 of the paper, the column without perturbation
    ("mnist_smallgap_normal_100", 1.000),
    ("mnist_smallgap_adv_100", 0.980),
    ("mnist_smallgap_int_100", 0.935),
    ("mnist_pool_normal_100", 0.990),
    ("mnist_pool_int_100", 0.950),
    ("cifar_smallgap_normal_200", 0.650),
    ("cifar_wresnet_normal_200", 0.765),
    ("cifar_wresnet_int_200", 0.735),
]


@pytest.mark.parametrize(("name", "expected"), CLEAN)
def test_clean_accuracy_is_that_of_the_paper(shared: Path, name: str, expected: float) -> None:
    dataset = "mnist" if name.startswith("mnist") else "cifar10"
    test = data.load(dataset, shared / "data")
    chosen = test.subset(np.random.RandomState(99).permutation(len(test))[:200])
    model = models.load(shared / "networks" / f"{name}.pkl")
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in chosen.batches(50))
    assert right / 200 == pytest.approx(expected)


def test_the_restricted_imagenet_network_is_recognised(shared: Path) -> None:
    model = models.load(shared / "networks" / "restimagenet_wresnet_normal_35.pkl")
    assert model.config == {"name": "wresnet", "in_channels": 3, "num_classes": 9}
    with torch.no_grad():
        assert model.features(torch.rand(1, 3, 224, 224)).shape == (1, 64, 56, 56)


def test_the_restricted_imagenet_network_has_its_classes_in_that_order(shared: Path) -> None:
    model = models.load(shared / "networks" / "restimagenet_wresnet_normal_35.pkl")
    # Smaller than it was trained on, to be quick.
    photos = data.load(
        "restricted_imagenet", shared / "data" / "restricted_imagenet_sample", size=128
    )
    assert len(photos) == 203
    some = photos.subset(range(0, 203, 4))
    with torch.no_grad():
        predicted = torch.cat([model(x).argmax(1) for x, _ in some.batches(17)])
    right = (predicted == some.labels).float().mean()
    by_name = torch.tensor([sorted(some.classes).index(name) for name in some.classes])
    right_if_sorted = (predicted == by_name[some.labels]).float().mean()
    assert right > 1 / 9
    assert right > 2 * right_if_sorted


def as_released(model: models.GapClassifier) -> list[Any]:
    """A network as the authors pickled theirs."""
    layers: list[Any] = []
    for layer in model.layers:  # type: ignore[union-attr]
        if hasattr(layer, "weight"):
            weight = layer.weight.detach().permute(2, 3, 1, 0).contiguous().numpy()
            layers.append((weight, layer.bias.detach().numpy()))
        else:
            layers.append((np.full((2, 2), np.nan, np.float32), np.float32(np.nan)))
    return [*layers, (model.weight.detach().t()[None, None].contiguous().numpy(),)]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a pickle and tells where."""

    def to_file(content: Any, protocol: int = 3) -> Path:
        path = tmp_path / "network.pkl"
        path.write_bytes(
            content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol)
        )
        return path

    return to_file


@pytest.mark.parametrize("make", [models.small, models.pool, models.wresnet])
@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 9)])
def test_networks_are_recognised_by_their_shapes(
    write: Callable[..., Path], make: Any, channels: int, classes: int
) -> None:
    model = make(channels, classes, seed=0)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    read = models.load(write(as_released(model)))
    assert read.config == model.config
    assert not read.training
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, read.get_parameter(name)), name


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_read(write: Callable[..., Path], protocol: int) -> None:
    model = models.pool(seed=0)
    read = models.load(write(as_released(model), protocol=protocol))
    assert torch.equal(read.weight, model.weight)


@pytest.mark.parametrize("core", [b"numpy.core.", b"numpy._core."])
def test_module_names_of_numpy_1_and_2_are_read(write: Callable[..., Path], core: bytes) -> None:
    model = models.pool(seed=0)
    content = pickle.dumps(as_released(model), protocol=3)
    content = content.replace(b"cnumpy._core.", b"cnumpy.core.").replace(
        b"cnumpy.core.", b"c" + core
    )
    assert content.count(core) == 2  # _reconstruct and scalar
    assert torch.equal(models.load(write(content)).weight, model.weight)


def test_fortran_order_and_foreign_byte_order_are_read(write: Callable[..., Path]) -> None:
    model = models.pool(seed=0)
    layers = as_released(model)
    foreign = [tuple(np.array(a, dtype=">f8", order="F") for a in layer) for layer in layers]
    assert foreign[0][0].flags.f_contiguous
    assert torch.equal(models.load(write(foreign)).weight, model.weight)


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_is_refused_before_it_runs(
    write: Callable[..., Path], tmp_path: Path, protocol: int
) -> None:
    marker = tmp_path / "it-ran"
    evil = Call(os.system, f"touch {marker}")
    for content in ([evil], [*as_released(models.small(seed=0)), evil], {"a": evil}, evil):
        with pytest.raises(InputError, match=r"system.*could run code") as error:
            models.load(write(content, protocol=protocol))
        assert not marker.exists()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "function",
    [eval, exec, open, getattr, __import__, np.load, np.array, torch.load, io.BytesIO, bytearray],
    ids=lambda f: f.__name__,
)
def test_every_other_global_is_refused(write: Callable[..., Path], function: Any) -> None:
    with pytest.raises(InputError, match=function.__name__):
        models.load(write([Call(function, "x")]))


def test_old_opcodes_that_call_are_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    for content in (
        f"(S'touch {marker}'\nios\nsystem\n.",  # INST
        f"(cos\nsystem\nS'touch {marker}'\no.",  # OBJ
        f"cos\nsystem\n(S'touch {marker}'\ntR.",  # REDUCE
    ):
        with pytest.raises(InputError, match=r"os\.system"):
            models.load(write(content.encode()))
        assert not marker.exists()


def test_a_refusal_shows_no_control_characters(write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="could run code") as error:
        models.load(write(b"\x80\x04\x8c\x06a\nb\x1b[m\x8c\x01f\x93."))
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "name", ["numpy ndarray", "numpy dtype", "numpy.core.multiarray _reconstruct", "_codecs encode"]
)
def test_a_pickle_cannot_change_the_reader(write: Callable[..., Path], name: str) -> None:
    module, attribute = name.split()
    # BUILD with a state of (None, {...}) sets attributes of what lies on the stack: here a global.
    state = pickle.dumps((None, {"__setstate__": 1, "value": 2}), protocol=2)[2:-1]
    content = f"c{module}\n{attribute}\n".encode() + state + b"b."
    with pytest.raises(InputError, match="damaged"):
        models.load(write(content))
    model = models.pool(seed=0)
    assert torch.equal(models.load(write(as_released(model), protocol=2)).weight, model.weight)


def test_truncated_files_are_refused(write: Callable[..., Path]) -> None:
    content = pickle.dumps(as_released(models.pool(seed=0)), protocol=3)
    for length in [*range(0, 300, 7), *range(300, len(content), 20_011), len(content) - 1]:
        with pytest.raises(InputError, match=r"network\.pkl"):
            models.load(write(content[:length]))


def test_files_with_flipped_bytes_are_refused_or_read(write: Callable[..., Path]) -> None:
    content = pickle.dumps(as_released(models.pool(seed=0)), protocol=3)
    random.seed(0)
    # Near the opcodes: at both ends, and before each array's bytes.
    starts = [m.start() for m in re.finditer(rb"\(K", content)] + [0, len(content) - 60]
    refused = 0
    for _ in range(100):
        damaged = bytearray(content)
        at = min(random.choice(starts) + random.randrange(60), len(content) - 1)
        damaged[at] ^= 1 << random.randrange(8)
        try:
            models.load(write(bytes(damaged)))
        except InputError:
            refused += 1
    assert refused > 20


LOOP: list[Any] = [1]
LOOP.append(LOOP)


def nested(depth: int) -> Any:
    value: Any = (0.0,)
    for _ in range(depth):
        value = (value, value)
    return value


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        {"weights": [1, 2]},
        [],
        [1, 2, 3],
        [(1.0, 2.0), (3.0,)],
        [(np.zeros((4, 4)),), ()],
        [(np.zeros((4, 4, 1, 16), np.int64), np.zeros(16)), (np.zeros((1, 1, 16, 10)),)],
        [(np.array([{}], dtype=object),), (np.zeros(3),)],
        [(np.zeros(3, dtype=[("a", "f4")]),), (np.zeros(3),)],
        [nested(100), (np.zeros(3),)],
        [np.zeros((4, 4, 1, 16)), np.zeros((1, 1, 16, 10))],
        LOOP,
    ],
    ids=lambda content: type(content).__name__,
)
def test_pickles_of_anything_else_are_refused(write: Callable[..., Path], content: Any) -> None:
    with pytest.raises(InputError, match=r"network\.pkl") as error:
        models.load(write(content))
    assert "\n" not in str(error.value)


def test_layers_of_no_known_network_are_refused(write: Callable[..., Path]) -> None:
    layers = as_released(models.small(seed=0))
    del layers[1]
    with pytest.raises(InputError, match=r"3 layers.*small, pool, wresnet"):
        models.load(write(layers))


def test_weights_that_are_not_finite_are_refused(write: Callable[..., Path]) -> None:
    layers = as_released(models.small(seed=0))
    layers[1][1][0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        models.load(write(layers))
