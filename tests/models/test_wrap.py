"""Networks of other libraries as GapClassifiers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models as zoo

from fastinterp import InputError, models


def stack(*, before_linear: tuple[nn.Module, ...] = (), dropout: float = 0.5) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 12, 3, stride=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        *before_linear,
        nn.Dropout(dropout),
        nn.Linear(12, 5),
    )


class WithFeatureMethod(nn.Module):
    """What timm's networks look like from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)
        self.later = nn.Conv2d(3, 6, 3)

    def forward_features(self, x: Tensor) -> Tensor:
        return F.silu(self.later(x))

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.forward_features(x).mean((2, 3)))


class FunctionalReLU(nn.Module):
    """What torchvision's DenseNet looks like: a ReLU between the children."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 6, 3)
        self.classifier = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(F.adaptive_avg_pool2d(F.relu(self.features(x)), 1).flatten(1))


class AnyForward(nn.Module):
    """A forward pass of one's own: layers out of order, functions between them, a dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)
        self.second = nn.Conv2d(8, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.register_buffer("shift", torch.rand(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.first(x - self.shift)))
        x = F.relu(self.second(F.dropout(x, 0.5, self.training)))
        return self.fc(x.mean(dim=(2, 3)))


class Normalise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.rand(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / 0.2


WRAPPED: dict[str, Callable[[], nn.Module]] = {
    "stack": stack,
    "feature method": WithFeatureMethod,
    "functional relu": FunctionalReLU,
    "resnet": lambda: zoo.ResNet(zoo.resnet.BasicBlock, [1, 1, 1, 1], num_classes=7),
    "resnext": lambda: zoo.ResNet(
        zoo.resnet.Bottleneck, [1, 1, 1, 1], num_classes=7, groups=4, width_per_group=4
    ),
    "densenet": lambda: zoo.DenseNet(8, (2, 2, 2, 2), 16, num_classes=7),
    "mobilenet v2": lambda: zoo.MobileNetV2(num_classes=7, width_mult=0.25),
    "shufflenet": lambda: zoo.ShuffleNetV2([1, 1, 1], [8, 16, 32, 64, 128], num_classes=7),
    "mnasnet": lambda: zoo.MNASNet(0.25, num_classes=7),
    "gap": lambda: models.small(3, 7, seed=0),
    "squeezenet": lambda: zoo.SqueezeNet("1_1", num_classes=7),
    "normalised first": lambda: nn.Sequential(Normalise(), WithFeatureMethod()),
    "any forward": AnyForward,
    "normalised resnet": lambda: nn.Sequential(
        Normalise(), zoo.ResNet(zoo.resnet.BasicBlock, [1, 1, 1, 1], num_classes=7)
    ),
    "googlenet": lambda: zoo.GoogLeNet(7, aux_logits=True, init_weights=False).eval(),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_logits_are_the_networks_own(name: str) -> None:
    module = WRAPPED[name]()
    wrapped = models.wrap(module).eval()
    x = torch.rand(3, wrapped.in_channels, 80, 72)
    with torch.no_grad():
        expected = module(x)
        features = wrapped.features(x)
        torch.testing.assert_close(wrapped(x), expected)
    assert features.shape[:2] == (3, wrapped.weight.shape[1])
    assert features.shape[2] * features.shape[3] > 1
    assert wrapped.num_classes == expected.shape[1]
    assert wrapped.config is None


@pytest.mark.parametrize("name", ["resnet", "densenet", "feature method", "any forward"])
def test_wrapping_changes_nothing_on_the_network(name: str) -> None:
    module = WRAPPED[name]()
    frozen = next(m for m in module.modules() if m is not module)
    module.train()
    frozen.eval()
    modes = {part: part.training for part in module.modules()}
    state = {key: value.clone() for key, value in module.state_dict().items()}
    before = torch.get_rng_state()
    wrapped = models.wrap(module)
    assert torch.equal(torch.get_rng_state(), before)
    assert wrapped.training
    assert {part: part.training for part in module.modules()} == modes
    for key, value in module.state_dict().items():
        assert torch.equal(value, state[key]), key
    for part in module.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
        assert not part._backward_hooks
    assert all(p.grad is None for p in module.parameters())


def test_parameters_and_modes_are_shared() -> None:
    module = stack()
    wrapped = models.wrap(module)
    assert {id(p) for p in wrapped.parameters()} == {id(p) for p in module.parameters()}
    assert wrapped.weight is module[-1].weight
    assert wrapped.bias is module[-1].bias
    wrapped.eval()
    assert not module[1].training
    wrapped.train()
    assert module[1].training
    assert not models.wrap(stack().eval()).training
    wrapped.double()
    assert wrapped.weight.dtype == torch.float64
    assert wrapped(torch.rand(2, 3, 16, 16, dtype=torch.float64)).dtype == torch.float64


def test_a_traced_network_moves_copies_and_changes_modes() -> None:
    module = AnyForward().eval()
    wrapped, x = models.wrap(module), torch.rand(2, 3, 20, 20)
    for same in (wrapped.double(), copy.deepcopy(wrapped)):
        with torch.no_grad():
            torch.testing.assert_close(same(x.double()), module(x.double()))
    with torch.no_grad():
        module.shift += 1  # in place, as load_state_dict does
        module.first.weight *= 2
    torch.testing.assert_close(wrapped(x.double()), module(x.double()))
    wrapped.train()
    assert not torch.equal(wrapped.features(x.double()), wrapped.features(x.double()))
    assert set(wrapped.state_dict()) == {f"module.{name}" for name in module.state_dict()}
    (grad,) = torch.autograd.grad(wrapped(x.double()).sum(), module.first.weight)
    assert grad.abs().sum() > 0


@pytest.mark.parametrize("around", [nn.DataParallel, torch.compile])
def test_what_is_around_a_network_is_to_be_taken_off(around: Callable[..., nn.Module]) -> None:
    with pytest.raises(InputError, match=r"pass the network inside, without torch\.compile"):
        models.wrap(around(stack()))


def test_normalisation_is_inside() -> None:
    module = stack().eval()
    mean, std = (0.4, 0.5, 0.6), torch.tensor([0.2, 0.3, 0.4])
    wrapped = models.wrap(module, mean, std)
    x = torch.rand(2, 3, 20, 20)
    by_hand = (x - torch.tensor(mean).view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    torch.testing.assert_close(wrapped(x), module(by_hand))
    assert set(wrapped.state_dict()) == {f"module.{key}" for key in module.state_dict()}
    torch.testing.assert_close(
        models.wrap(module, mean=mean)(x), module(by_hand * std.view(3, 1, 1))
    )


def test_grey_images_are_not_taken_for_coloured_ones() -> None:
    # The subtraction of the mean would make three channels of one.
    with pytest.raises(InputError, match=r"\[N, 3, H, W\], got shape \[2, 1, 20, 20\]"):
        models.wrap(stack(), (0.4, 0.5, 0.6))(torch.rand(2, 1, 20, 20))


@pytest.mark.parametrize(
    ("mean", "std", "says"),
    [
        ((0.5,), None, "mean must be 3 numbers"),
        ("imagenet", None, "mean must be 3 numbers.*imagenet"),
        (None, (1.0, 1.0), "std must be 3 numbers"),
        (None, (1.0, 0.0, 1.0), "above 0"),
        ((0.0, float("nan"), 0.0), None, "mean"),
    ],
)
def test_normalisation_that_does_not_fit_is_refused(mean: Any, std: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        models.wrap(stack(), mean, std)


class Cosine(nn.Module):
    """A classifier that is not linear in the averaged map, though it ends in a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.normalize(self.body(x).mean((2, 3))))


class Deaf(nn.Module):
    """A network whose logits do not depend on the image: nothing can be compared."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3)
        self.fc = nn.Linear(6, 4)
        nn.init.zeros_(self.fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).amax((2, 3)))


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "hidden layer": lambda: stack(before_linear=(nn.Linear(12, 12), nn.ReLU())),
    "relu on the average": lambda: stack(before_linear=(nn.ReLU(),)),
    "normalised average": Cosine,
    "deaf": Deaf,
    "maximum": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_cam_does_not_explain_are_refused(name: str) -> None:
    module = REFUSED[name]()
    modes = [part.training for part in module.modules()]
    with pytest.raises(InputError, match="global average and one linear layer"):
        models.wrap(module)
    assert [part.training for part in module.modules()] == modes


def test_a_network_that_needs_other_images_takes_a_probe() -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.AvgPool2d(26), nn.Flatten(), nn.Linear(6, 4)
    ).eval()
    with pytest.raises(InputError, match=r"cannot be tried on .*\[2, 1, 64, 64\].*probe="):
        models.wrap(module)
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(models.wrap(module, probe=x)(x), module(x))
    with pytest.raises(InputError, match="probe must be images"):
        models.wrap(module, probe=x[0])


@pytest.mark.parametrize("wrong", [3, nn.Linear(3, 3), nn.Conv2d(3, 3, 1), models])
def test_what_is_no_classifier_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError):
        models.wrap(wrong)


def test_first_and_second_order_gradients_flow() -> None:
    wrapped = models.wrap(stack(dropout=0.0).eval()).double()
    x = torch.rand(1, 3, 9, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: wrapped(x).square().sum(), (x,), fast_mode=True)


@pytest.mark.parametrize("make", [stack, AnyForward])
def test_compiles_as_one_graph(make: Callable[[], nn.Module]) -> None:
    wrapped = models.wrap(make().eval(), mean=(0.5, 0.5, 0.5))
    x = torch.rand(2, 3, 16, 16)
    compiled = torch.compile(wrapped, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), wrapped(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_wrapped(dtype: torch.dtype) -> None:
    wrapped = models.wrap(stack().to(dtype).eval(), std=(2.0, 2.0, 2.0))
    assert wrapped(torch.rand(2, 3, 16, 16, dtype=dtype)).dtype == dtype
    with pytest.raises(InputError, match="global average"):
        models.wrap(Cosine().to(dtype))


@pytest.mark.interop
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet_b0", "regnety_002"])
def test_timm_networks(name: str) -> None:
    timm = pytest.importorskip("timm")
    module = timm.create_model(name, pretrained=False, num_classes=10).eval()
    wrapped = models.wrap(module)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(wrapped(x), module(x))
