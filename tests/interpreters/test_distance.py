"""Eqs. (3), (4), (8), appendix D and Proposition 1."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from fastinterp import models
from fastinterp._utils.errors import InputError
from fastinterp.interpreters import (
    CAM,
    GradCAM,
    GradCAMPlusPlus,
    Gradient,
    IntegratedGradients,
    Interpreter,
    Repr,
)
from fastinterp.interpreters.distance import (
    interpretability_discrepancy,
    map_distance,
    margin_bound,
    weighted_discrepancy,
    weighted_map_distance,
)
from fastinterp.models.gap import GapClassifier

# The bound holds for any two inputs, also for some that are no images.
pytestmark = pytest.mark.filterwarnings("ignore:.*pixels lie outside:UserWarning")
Pair: TypeAlias = tuple[Tensor, Tensor]


@pytest.fixture
def model(smooth: GapClassifier) -> GapClassifier:
    return smooth


@pytest.fixture
def pair() -> Pair:
    x = torch.rand(3, 2, 6, 5, dtype=torch.float64)
    return x, (x + 0.3 * torch.randn_like(x)).clamp(0, 1)


LABELS = torch.tensor([1, 3, 0])
TARGETS = torch.tensor([2, 0, 3])
SETS: dict[str, list[list[int]]] = {
    "1-class": [[1], [3], [0]],
    "2-class": [[1, 2], [3, 0], [0, 3]],
    "all-class": [[0, 1, 2, 3]] * 3,
}
INTERPRETERS = {
    "cam": CAM,
    "gradcam": GradCAM,
    "gradcam++": GradCAMPlusPlus,
    "ig": lambda model: IntegratedGradients(model, steps=3),
    "gradient": Gradient,
}
interpreters = pytest.mark.parametrize("make", INTERPRETERS.values(), ids=INTERPRETERS.keys())


NORMS = [(1, False), (2, False), (2, True)]
norms = pytest.mark.parametrize(("p", "squared"), NORMS)
normalization = pytest.mark.parametrize("normalized", [False, True])


def by_loops(
    maps: Tensor, maps_adv: Tensor, kind: str, p: int, squared: bool, normalized: bool
) -> Tensor:
    """Eq. (3) in numbers, from the maps of every class."""
    result = []
    for n, classes in enumerate(SETS[kind]):
        total = 0.0
        for c in classes:
            clean, adv = maps[n, c].flatten().tolist(), maps_adv[n, c].flatten().tolist()
            unit = max(clean) - min(clean) if normalized else 1.0
            size = sum(abs((a - b) / unit) ** p for a, b in zip(clean, adv, strict=True))
            total += size if p == 1 or squared else math.sqrt(size)
        result.append(total / len(classes))
    return torch.tensor(result, dtype=maps.dtype)


@interpreters
@pytest.mark.parametrize("kind", SETS)
@norms
@normalization
@torch.no_grad()
def test_equation_3(
    make: Any, model: GapClassifier, pair: Pair, kind: Any, p: Any, squared: bool, normalized: bool
) -> None:
    interpreter: Interpreter = make(model)
    settings = {"p": p, "squared": squared, "normalized": normalized}
    expected = by_loops(*(interpreter(x) for x in pair), kind, **settings)
    result = interpretability_discrepancy(
        interpreter, *pair, LABELS, TARGETS, classes=kind, **settings
    )
    torch.testing.assert_close(result, expected)


@torch.no_grad()
def test_equation_4_is_the_default(model: GapClassifier, pair: Pair) -> None:
    expected = by_loops(*(CAM(model)(x) for x in pair), "2-class", 1, False, False)
    result = interpretability_discrepancy(CAM(model), *pair, LABELS, TARGETS)
    torch.testing.assert_close(result, expected)


@torch.no_grad()
def test_repr_averages_over_channels(model: GapClassifier, pair: Pair) -> None:
    a, b = (model.features(x) for x in pair)
    expected = (a - b).abs().sum(dim=(2, 3)).mean(dim=1)
    for kind in SETS:
        result = interpretability_discrepancy(Repr(model), *pair, LABELS, TARGETS, classes=kind)
        torch.testing.assert_close(result, expected)


@norms
@normalization
def test_distance_is_differentiable_twice(p: Any, squared: bool, normalized: bool) -> None:
    maps = torch.rand(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    maps_adv = (maps.detach() + torch.randn_like(maps)).requires_grad_()

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return map_distance(a, b, p, squared=squared, normalized=normalized)

    assert torch.autograd.gradcheck(distance, (maps, maps_adv))
    assert torch.autograd.gradgradcheck(distance, (maps, maps_adv), fast_mode=True)


@norms
def test_distance_of_equal_maps_is_zero_with_zero_gradient(p: Any, squared: bool) -> None:
    """Every ascent starts at x itself."""
    maps = torch.rand(2, 3, 4, 4)
    maps_adv = maps.clone().requires_grad_()
    value = map_distance(maps, maps_adv, p, squared=squared)
    (grad,) = torch.autograd.grad(value.sum(), maps_adv)
    assert torch.equal(value, torch.zeros(2, 3)) and torch.equal(grad, torch.zeros_like(grad))


def test_normalized_distance_of_a_constant_map_is_nan() -> None:
    assert map_distance(torch.ones(1, 1, 4), torch.rand(1, 1, 4), normalized=True).isnan().all()


def test_normalized_distance_ignores_the_scale_of_the_maps() -> None:
    maps, maps_adv = torch.rand(2, 3, 4, 5, 5, dtype=torch.float64).unbind()
    one, other = (map_distance(s * maps, s * maps_adv, normalized=True) for s in (1.0, 17.0))
    torch.testing.assert_close(one, other)


@interpreters
@torch.no_grad()
def test_equation_8(make: Any, model: GapClassifier, pair: Pair) -> None:
    interpreter: Interpreter = make(model)
    clean, adv = (interpreter(x) for x in pair)
    logits = model(pair[1])
    expected, one_class = [], []
    for n, t in enumerate(LABELS.tolist()):
        s = (clean[n] - adv[n]).abs().flatten(1).sum(dim=1)
        others = [i for i in range(4) if i != t]
        weights = logits[n].exp() / logits[n, others].exp().sum()
        expected.append(0.5 * s[t] + 0.5 * sum(weights[i] * s[i] for i in others))
        one_class.append(s[t])
    result = weighted_discrepancy(interpreter, *pair, LABELS)
    torch.testing.assert_close(result, torch.stack(expected))
    result = weighted_discrepancy(interpreter, *pair, LABELS, reduction="1-class")
    torch.testing.assert_close(result, torch.stack(one_class))
    for reduction, wanted in (("weighted", expected), ("1-class", one_class)):
        result = weighted_map_distance(clean, adv, logits, LABELS, reduction)
        torch.testing.assert_close(result, torch.stack(wanted))


@interpreters
def test_equation_8_is_differentiable(make: Any, model: GapClassifier, pair: Pair) -> None:
    """Through the softmax as well, by both images; training needs the parameters, too."""
    interpreter: Interpreter = make(model)
    x, x_adv = (each.clone().requires_grad_() for each in pair)
    assert torch.autograd.gradcheck(
        lambda x, x_adv: weighted_discrepancy(interpreter, x, x_adv, LABELS), (x, x_adv)
    )
    assert torch.autograd.gradcheck(
        lambda *_: weighted_discrepancy(interpreter, x.detach(), x_adv.detach(), LABELS),
        tuple(model.parameters()),
        fast_mode=True,
    )


def test_equation_8_in_plain_torch_gives_the_fused_gradients(
    model: GapClassifier, pair: Pair
) -> None:
    grads = []
    for interpreter in (CAM(model), GradCAM(model)):  # equal maps, another way to eq. (8)
        x_adv = pair[1].clone().requires_grad_()
        value = weighted_discrepancy(interpreter, pair[0], x_adv, LABELS).square().sum()
        grads.append(torch.autograd.grad(value, [x_adv, *model.parameters()]))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


COMPLETE = {
    "cam": CAM,
    "gradcam": GradCAM,
    "ig": lambda model: IntegratedGradients(model, steps=50),
}


@torch.no_grad()
def incompleteness(interpreter: Interpreter, x: Tensor, classes: Tensor) -> Tensor:
    """By how much the maps of two classes miss f_c(x) - f_c(0), added up: the Riemann error."""
    if not isinstance(interpreter, IntegratedGradients):
        return torch.zeros(len(x), dtype=x.dtype)
    sums = interpreter(x, classes).flatten(2).sum(dim=2)
    difference = interpreter.model(x) - interpreter.model(torch.zeros_like(x))
    return (sums - difference.gather(1, classes)).abs().sum(dim=1)


@pytest.mark.parametrize("name", COMPLETE)
def test_proposition_1_on_random_networks(name: str, make_smooth: Any) -> None:
    """D >= margin / 2, whatever the network, the images, the labels and the perturbation."""
    generator = torch.Generator().manual_seed(7)
    fooled = 0
    for trial in range(20 if name == "ig" else 60):
        torch.manual_seed(trial)
        classes = int(torch.randint(2, 7, (), generator=generator))
        channels = int(torch.randint(1, 9, (), generator=generator))
        network = make_smooth(classes, channels, bias=trial % 2 == 0)
        x = torch.rand(8, 2, 6, 5, dtype=torch.float64)
        size = 10 ** float(torch.empty(()).uniform_(-3, 1))
        x_adv = x + size * torch.randn_like(x)
        given = torch.randint(classes, (8,)) if trial % 3 == 0 else None
        interpreter: Interpreter = COMPLETE[name](network)
        bound = margin_bound(interpreter, x, x_adv, given)
        both = torch.stack([bound.labels, bound.targets], dim=1)
        missed = incompleteness(interpreter, x, both) + incompleteness(interpreter, x_adv, both)
        assert (bound.discrepancy >= (bound.margin - missed) / 2 - 1e-12).all()
        if given is None:
            assert (bound.margin >= 0).all()  # t is the prediction at x
            assert torch.equal(bound.margin[~bound.fooled], torch.zeros(8).double()[~bound.fooled])
        fooled += int(bound.fooled.sum())
    assert fooled > 20  # the bound was put to the test


def test_proposition_1_is_tight() -> None:
    """One position and two classes with opposite weights, moved just across the boundary."""

    class Line(GapClassifier):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
            self.bias = None

        def features(self, x: Tensor) -> Tensor:
            return x

    x = torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64)
    bound = margin_bound(CAM(Line()), x, torch.full_like(x, -1e-9))
    assert bound.labels.item() == 0 and bound.targets.item() == 1 and bound.fooled.all()
    assert bound.margin.item() == 6.0
    torch.testing.assert_close(bound.discrepancy, torch.tensor([3.0]).double())
    torch.testing.assert_close(bound.tightness, torch.tensor([1.0]).double())


def test_margin_bound_reports_by_hand(model: GapClassifier, pair: Pair) -> None:
    bound = margin_bound(CAM(model), *pair, LABELS)
    logits, targets = model(pair[0]).detach(), model(pair[1]).argmax(dim=1)
    rows = torch.arange(3)
    assert torch.equal(bound.labels, LABELS) and torch.equal(bound.targets, targets)
    torch.testing.assert_close(bound.margin, logits[rows, LABELS] - logits[rows, targets])
    expected = interpretability_discrepancy(CAM(model), *pair, LABELS, targets).detach()
    torch.testing.assert_close(bound.discrepancy, expected)
    torch.testing.assert_close(bound.tightness, bound.margin / 2 / expected)
    assert not bound.discrepancy.requires_grad
    unmoved = margin_bound(CAM(model), pair[0], pair[0])
    assert unmoved.tightness.isnan().all() and not unmoved.fooled.any()


@torch.no_grad()
def test_proposition_1_on_a_released_network(shared: Path) -> None:
    network = models.load(shared / "networks" / "mnist_smallgap_normal_100.pkl").double()
    x = torch.rand(32, 1, 28, 28, dtype=torch.float64)
    bound = margin_bound(CAM(network), x, torch.rand_like(x))
    assert (bound.discrepancy >= bound.margin / 2 - 1e-12).all()


refused = partial(pytest.raises, InputError)


def test_refuses_maps_that_do_not_fit() -> None:
    maps = torch.rand(2, 3, 4, 4)
    for other, settings, message in (
        (maps[:, :2], {}, "one shape"),
        (maps.double(), {}, "dtype"),
        (maps.to("meta"), {}, "device"),
        (maps, {"p": 3}, "p must be"),
        (maps, {"squared": True}, "squared"),
    ):
        with refused(match=message):
            map_distance(maps, other, **settings)
    with refused(match="one shape"):
        map_distance(maps[:, 0, 0, 0], maps[:, 0, 0, 0])


@pytest.mark.parametrize(
    ("classes", "given", "message"),
    [
        ("2-class", (), "needs labels"),
        ("2-class", (LABELS,), "needs targets"),
        ("2-class", (LABELS, TARGETS[:2]), "targets"),
        ("2-class", (LABELS + 3, TARGETS), r"0\.\.3"),
        ("2-class", (LABELS.tolist(), TARGETS), "as_tensor"),
        ("1-class", (LABELS[0],), r"shape \[N\]"),
        ("3-class", (LABELS, TARGETS), "classes must be"),
    ],
)
def test_refuses_classes_that_are_not_given(
    model: GapClassifier, pair: Pair, classes: str, given: tuple, message: str
) -> None:
    with refused(match=message):
        interpretability_discrepancy(CAM(model), *pair, *given, classes=classes)


@pytest.mark.parametrize("make", [CAM, GradCAM])
def test_takes_integer_labels_of_any_width_and_no_lists(
    make: Any, model: GapClassifier, pair: Pair
) -> None:
    interpreter = make(model)
    expected = interpretability_discrepancy(interpreter, *pair, LABELS, TARGETS)
    found = interpretability_discrepancy(interpreter, *pair, LABELS.int(), TARGETS.byte())
    assert torch.equal(found, expected)
    weighted = weighted_discrepancy(interpreter, *pair, LABELS)
    assert torch.equal(weighted_discrepancy(interpreter, *pair, LABELS.int()), weighted)
    bound = margin_bound(interpreter, *pair, LABELS)
    assert torch.equal(margin_bound(interpreter, *pair, LABELS.int()).margin, bound.margin)
    for function in (weighted_discrepancy, margin_bound):
        with refused(match="as_tensor"):
            function(interpreter, *pair, LABELS.tolist())
        with refused(match=r"0\.\.3"):
            function(interpreter, *pair, LABELS + 1)
        with refused(match="Repr has none"):
            function(Repr(model), *pair, LABELS)


@pytest.mark.parametrize(
    ("classes", "labels", "reduction", "message"),
    [
        (2, LABELS, "weighted", "all C"),
        (4, LABELS[:2], "weighted", "labels"),
        (4, LABELS + 1, "weighted", r"0\.\.3"),
        (4, LABELS.double(), "weighted", "int64"),
        (4, LABELS, "2-class", "reduction"),
    ],
)
def test_equation_8_refuses_what_it_cannot_weigh(
    model: GapClassifier, pair: Pair, classes: int, labels: Tensor, reduction: str, message: str
) -> None:
    maps = CAM(model)(pair[0])[:, :classes]
    with refused(match=message):
        weighted_map_distance(maps, maps, model(pair[0]), labels, reduction)
