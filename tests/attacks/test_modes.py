"""What convolutions run in while an attack or a verdict is on, and what a caller finds after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from fastinterp import PGD, evaluation, models
from fastinterp.attacks import CrossEntropy, LinfBall, ascend
from fastinterp.attacks.modes import convolutions_in

GENERAL, CUDNN, CUDA, MKLDNN = (
    torch.backends, torch.backends.cudnn, torch.backends.cuda, torch.backends.mkldnn,
)  # fmt: skip
NEWER = (CUDNN.conv, CUDNN.rnn, CUDA.matmul, MKLDNN.conv, MKLDNN.matmul)
OLDER: tuple[Callable[[], object], ...] = (
    lambda: CUDNN.allow_tf32,
    lambda: CUDA.matmul.allow_tf32,
    torch.get_float32_matmul_precision,
)
EXACT = ["ieee"] * 5 + [False, False, "highest"]
TF32 = ["tf32"] * 3 + ["ieee"] * 2 + [True, True, "high"]


def switches() -> list[object]:
    """All of them; None where torch refuses to tell, as the names contradict each other."""
    found: list[object] = [switch.fp32_precision for switch in NEWER]
    for read in OLDER:
        try:
            found.append(read())
        except RuntimeError:
            found.append(None)
    return found


def older(cudnn: bool, matmul: str) -> None:
    CUDNN.allow_tf32 = cudnn
    torch.set_float32_matmul_precision(matmul)


def newer(switch: object, value: str) -> None:
    switch.fp32_precision = value  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    def forget() -> None:
        older(True, "highest")
        for switch in (GENERAL, CUDNN, MKLDNN, *NEWER[2:]):
            newer(switch, "none")

    forget()
    yield
    forget()


SETTINGS: dict[str, Callable[[], None]] = {
    "defaults": lambda: None,
    "off": lambda: older(False, "highest"),
    "high": lambda: older(True, "high"),
    "medium": lambda: older(True, "medium"),
    "general": lambda: newer(GENERAL, "tf32"),
    "general, exact": lambda: newer(GENERAL, "ieee"),
    "conv alone": lambda: newer(CUDNN.conv, "ieee"),
    "newer matmul": lambda: newer(CUDA.matmul, "tf32"),
    "newer over older": lambda: (older(True, "medium"), newer(CUDA.matmul, "ieee")),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(
    ("precision", "inside"), [("float32", EXACT), ("tf32", TF32), ("bf16", EXACT)]
)
def test_switches_are_set_and_set_back(setting: str, precision: str, inside: list) -> None:
    SETTINGS[setting]()
    before = switches()
    with pytest.raises(KeyError), convolutions_in(precision):
        assert switches() == inside
        with convolutions_in("float32"):
            assert switches() == EXACT
        assert switches() == inside
        raise KeyError
    pairs = zip(before, switches(), strict=True)
    assert all(now == then for then, now in pairs if then is not None)


def test_what_followed_the_general_setting_follows_it_again() -> None:
    newer(GENERAL, "tf32")
    with convolutions_in("float32"):
        pass
    newer(GENERAL, "ieee")
    assert [switch.fp32_precision for switch in NEWER[2:]] == ["ieee"] * 3


@pytest.fixture
def watched() -> tuple[nn.Module, list[list[object]]]:
    """A network, and what the switches are at each of its passes."""
    model, seen = models.small(1, 4, seed=0), []
    model.layers[0].register_forward_hook(lambda module, inputs, out: seen.append(switches()))
    return model, seen


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((4, 1, 28, 28), generator=generator), torch.arange(4)


def test_attacks_and_verdicts_run_in_float32(watched) -> None:
    model, seen = watched
    x, y = images()
    before = switches()
    PGD(model, 0.1, steps=2, random_start=True, restarts=2)(x, y)
    evaluation.sweep(model, x, y, eps=[0.0, 0.1], steps=[2], progress=False)
    evaluation.audit(model, x, y, eps=0.1, steps=(1, 2), progress=False)
    evaluation.explain(model, x, y, eps=0.1, steps=2)
    assert len(seen) > 20 and all(one == EXACT for one in seen)
    assert switches() == before


def test_an_inner_loop_may_run_in_tf32(watched) -> None:
    model, seen = watched
    x, y = images()
    ascend(model, LinfBall(0.1, 0.05), CrossEntropy(), x, y, 2, precision="tf32")
    assert len(seen) == 2 and all(one == TF32 for one in seen)


@pytest.mark.cuda
def test_errors_on_a_gpu_are_those_of_the_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((8, 64, 32, 32), generator=generator).cuda()
    weight = torch.randn((64, 64, 3, 3), generator=generator).cuda()
    exact = nn.functional.conv2d(x.double(), weight.double(), padding=1)
    errors = {}
    for precision in ("float32", "tf32"):
        older(precision == "float32", "high")  # the contrary of what is asked for below
        with convolutions_in(precision):
            found = nn.functional.conv2d(x, weight, padding=1)
        errors[precision] = float((found - exact).norm() / exact.norm())
    assert errors["float32"] < 2e-6
    if torch.cuda.get_device_capability() >= (8, 0):  # has TF32
        assert 1e-5 < errors["tf32"] < 2e-3
