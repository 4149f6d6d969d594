"""ops.kendall_tau against scipy and against its reference."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kendalltau
from support import DEVICES, block_op, needs_extension
from torch import Tensor

from fastinterp import InputError, ops
from fastinterp.ops import reference


def rows(count: int, length: int, levels: int | None, dtype=torch.float32) -> list[Tensor]:
    """a and b [count, length], correlated; `levels` values only, so with ties, where given."""
    a = torch.randn(count, length, dtype=torch.float64)
    b = 0.5 * a + torch.randn(count, length, dtype=torch.float64)
    if levels is not None:
        a, b = ((t * levels / 4).round() for t in (a, b))
    return [a.to(dtype), b.to(dtype)]


def scipy_rows(a: Tensor, b: Tensor) -> Tensor:
    taus = [
        kendalltau(x.double().numpy(), y.double().numpy()).statistic
        for x, y in zip(a.cpu(), b.cpu(), strict=True)
    ]
    return torch.tensor(taus, dtype=torch.float64)


FUNCTIONS = {"op": ops.kendall_tau, "reference": reference.kendall_tau}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("levels", [None, 3, 12], ids=["no ties", "many ties", "ties"])
@pytest.mark.parametrize("length", [2, 3, 7, 9, 49, 64, 257, 784])
@pytest.mark.parametrize("which", FUNCTIONS)
def test_equals_scipy(which: str, length: int, levels: int | None, device: str) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        a, b = (t.to(device) for t in rows(12, length, levels, dtype))
        found = FUNCTIONS[which](a, b)
        assert found.dtype == torch.float64
        torch.testing.assert_close(
            found.cpu(), scipy_rows(a, b), rtol=0, atol=1e-12, equal_nan=True
        )


@pytest.mark.parametrize("device", DEVICES)
def test_long_rows(device: str) -> None:
    a, b = (t.to(device) for t in rows(2, 30_000, 400))
    found = ops.kendall_tau(a, b)
    torch.testing.assert_close(found.cpu(), scipy_rows(a, b), rtol=0, atol=1e-12)
    torch.testing.assert_close(found, reference.kendall_tau(a, b), rtol=0, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_edges(device: str) -> None:
    nan = float("nan")
    a = torch.tensor([[1.0, 2, 3], [1, 1, 1], [1, 2, nan], [-0.0, 0, 1], [3, 2, 1]], device=device)
    b = torch.tensor([[1.0, 2, 3], [1, 2, 3], [1, 2, 3], [1, 1, 2], [1, 2, 3]], device=device)
    found = ops.kendall_tau(a, b).tolist()
    assert found[0] == 1
    assert found[1] != found[1]
    assert found[2] != found[2]
    assert found[3] == pytest.approx(1)
    assert found[4] == -1
    assert ops.kendall_tau(a[:0], b[:0]).shape == (0,)
    assert ops.kendall_tau(a[:, :1], b[:, :1]).isnan().all()


@needs_extension
@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("length", [2, 49, 300])
def test_emulated_blocks_equal_scipy(length: int, levels: int | None) -> None:
    a, b = rows(5, length, levels)
    found = block_op("kendall_tau")(a, b)
    torch.testing.assert_close(found, scipy_rows(a, b), rtol=0, atol=1e-12, equal_nan=True)


@needs_extension
@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device: str) -> None:
    a, b = (t.to(device) for t in rows(3, 20, None))
    torch.library.opcheck(torch.ops.fastinterp.kendall_tau.default, (a, b))
    compiled = torch.compile(ops.kendall_tau, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(a, b), ops.kendall_tau(a, b))


def test_bad_input_is_one_sentence() -> None:
    a, b = rows(3, 5, None)
    calls = [
        (r"b float32 \[2, 5\]", a, b[:2]),
        (r"a float32 \[5\]", a[0], b[0]),
        ("b float64", a, b.double()),
        ("a int32", a.int(), b.int()),
        ("b None", a, None),
    ]
    for match, *arguments in calls:
        with pytest.raises(InputError, match=match) as caught:
            ops.kendall_tau(*arguments)
        assert "\n" not in str(caught.value)
