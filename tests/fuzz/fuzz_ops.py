"""Random calls of ops: equal to the reference in float64, or refused in one sentence."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from random import Random
from typing import Any

import torch
from harness import one_sentence
from torch import Tensor

from fastinterp import ops
from fastinterp.ops import reference

DTYPES = (torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16)
EPS = {torch.float64: 2.0**-52, torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8}
EPS[torch.float16] = 2.0**-11
Call = tuple[str, tuple[Any, ...], dict[str, Any]]


def tensor(random: Random, *shape: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """Normal numbers in some memory layout."""
    generator = torch.Generator().manual_seed(random.getrandbits(62))
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64).mul(scale).to(dtype)
    layout = random.randrange(5)
    if layout == 1 and len(shape) == 4:
        return drawn.to(memory_format=torch.channels_last)
    if layout == 2 and len(shape) > 1:
        return drawn.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == 3 and shape and shape[-1] > 0:
        wide = torch.zeros((*shape[:-1], 2 * shape[-1]), dtype=dtype)
        wide[..., ::2] = drawn
        return wide[..., ::2]
    if layout == 4 and len(shape) > 1 and shape[0] > 1:
        return drawn[:1].expand(shape)
    return drawn


def scale_of(random: Random) -> float:
    return 10.0 ** random.choice((0, 0, 0, 0, -3, 3, -20, 15, -24, -41))


def draw(random: Random) -> Call:
    """A call that fits, as a rule."""
    dtype = random.choice(DTYPES)
    name = random.choice(("cam", "discrepancy", "discrepancy_and_gradient", "pgd_step", "tau"))
    n, k = random.choice((0, 1, 1, 2, 3, 7)), random.randrange(1, 70)
    h, w, c = random.randrange(1, 9), random.randrange(1, 9), random.randrange(1, 40)
    if name == "tau":
        a = tensor(random, n, h * w, dtype=dtype)
        b = tensor(random, n, h * w, dtype=dtype).round(decimals=random.randrange(3))
        return "kendall_tau", (a, b), {}
    if name == "pgd_step":
        x = tensor(random, n, random.randrange(1, 4), h, w, dtype=dtype).abs().clamp(0, 1)
        x_adv = (x + tensor(random, *x.shape, dtype=dtype, scale=0.1)).clamp(0, 1)
        # A half type holds no number as small as a float's smallest.
        grad = tensor(random, *x.shape, dtype=dtype, scale=scale_of(random))
        numbers: list[Any] = []
        for size in (0.05, 0.3):
            rows = torch.full((n,), size, dtype=dtype)
            numbers.append(rows if random.random() < 0.3 else random.choice((size, 0.0, 2.0)))
        norm = random.choice(("linf", "l2", "l1"))
        return name, (x_adv, grad, x, *numbers), {"norm": norm, "inplace": random.random() < 0.2}
    features = tensor(random, n, k, h, w, dtype=dtype)
    weight = tensor(random, c if name == "cam" else c + 1, k, dtype=dtype)
    if name == "cam":
        return name, (features, weight), {}
    adv = tensor(random, n, k, h, w, dtype=dtype)
    labels = torch.tensor([random.randrange(c + 1) for _ in range(n)], dtype=torch.int64)
    labels = labels.to(random.choice((torch.int64, torch.int64, torch.int32, torch.uint8)))
    bias = tensor(random, c + 1, dtype=dtype) if random.random() < 0.5 else None
    reduction = random.choice(("weighted", "weighted", "1-class"))
    return name, (features, adv, weight, labels), {"bias": bias, "reduction": reduction}


def spoil(random: Random, call: Call) -> Call:
    """Replace one argument by something else."""
    name, args, settings = call
    at = random.randrange(len(args))
    value = args[at]
    choices: list[Any] = [None, "x", 3, float("nan"), float("inf"), -1.0, [1.0, 2.0]]
    if isinstance(value, Tensor):
        choices += [
            value[:0], value[..., :-1], value.unsqueeze(0), value.flatten(), value.double(),
            value.int(), value.bool(), value.to("meta"), value * float("nan"), value - 100,
            value.to_sparse() if value.dim() else value, value.to(torch.complex64), value + 1000,
        ]  # fmt: skip
    replaced = (*args[:at], random.choice(choices), *args[at + 1 :])
    if random.random() < 0.2 and settings:
        key = random.choice(list(settings))
        settings = settings | {key: random.choice((None, "x", 3, torch.zeros(2)))}
    return name, replaced, settings


def exact(value: Any) -> Any:
    """Arguments of a call as the reference takes them, in float64."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value.long()
    return value


def expected(call: Call) -> tuple[Tensor, ...]:
    name, args, settings = call
    settings = {key: value for key, value in settings.items() if key != "inplace"}
    function: Callable[..., Any] = getattr(reference, name)
    exact_settings = {key: exact(value) for key, value in settings.items()}
    if name == "kendall_tau":
        tau = function(*map(exact, args))
        nan = (args[0].isnan() | args[1].isnan()).any(dim=1)
        return (torch.where(nan, torch.nan, tau),)
    result = function(*map(exact, args), **exact_settings)
    return result if isinstance(result, tuple) else (result,)


def case(random: Random) -> None:
    call = draw(random)
    spoilt = random.random() < 0.35
    if spoilt:
        call = spoil(random, call)
    name, args, settings = call
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            truth = expected(call)
    except Exception:
        truth = ()
    try:
        found = getattr(ops, name)(*args, **settings)
    except Exception as error:
        one_sentence(error)
        assert spoilt, f"a call that fits was refused: {error}"
        return
    assert truth, f"{name} takes what its reference does not"
    for ours, theirs in zip(found if isinstance(found, tuple) else (found,), truth, strict=True):
        assert not ours.is_meta and not ours.is_sparse, "a result without numbers"
        compare(call, ours.double(), theirs)


def compare(call: Call, ours: Tensor, truth: Tensor) -> None:
    """Equal in norm, image by image, and NaN at the same places."""
    assert ours.shape == truth.shape, f"shape {list(ours.shape)}, expected {list(truth.shape)}"
    dtype = call[1][0].dtype
    finite = truth.isfinite() & (truth.abs() < torch.finfo(dtype).max / 2)
    assert bool(ours[truth.isnan()].isnan().all()), "a number where the reference has NaN"
    allowed = allowed_error(call, torch.where(finite, truth, 0))
    known = allowed.isfinite()  # not where products leave the range of the type
    difference = (
        torch.where(finite, ours - truth, 0).flatten(1)
        if truth.dim() > 1
        else (torch.where(finite, ours - truth, 0)[:, None])
    )
    error = difference.norm(dim=1)
    wrong = known & ~(error <= allowed)
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0])
        raise AssertionError(
            f"{call[0]} in {dtype}: error {float(error[at]):.2e}, {float(allowed[at]):.2e} allowed"
        )


def allowed_error(call: Call, truth: Tensor) -> Tensor:
    """What rounding may do to sums of some hundred products, for each image [N]."""
    name, args, _ = call
    dtype = args[0].dtype
    flat = truth.flatten(1) if truth.dim() > 1 else truth[:, None]
    if name == "kendall_tau":
        return torch.full((len(truth),), 1e-12)
    scale = flat.norm(dim=1)
    if name == "pgd_step":
        ends = torch.cat([t.double().flatten() for t in args[:3:2]]).nan_to_num()
        reach = float(ends.abs().max()) if len(ends) else 0.0
        return 64 * EPS[dtype] * (scale + reach * flat.shape[1] ** 0.5) + 1e-300
    features, *others, weight = (t.double().abs() for t in args[: 2 if name == "cam" else 3])
    # Terms may cancel: a product is as exact as its largest summands.
    summands = features + sum(others, torch.zeros(()))
    scale = scale + reference.cam(summands, weight).flatten(1).sum(dim=1)
    if truth.dim() == 4 and name != "cam":  # a gradient by features
        scale = scale * (1 + weight.amax())
    tiny = torch.finfo(dtype).smallest_normal
    return 64 * EPS[dtype] * scale + tiny * flat.shape[1] ** 0.5
