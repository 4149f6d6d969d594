"""topk_intersection against sets, with ties, NaN and k of every size."""

from __future__ import annotations

import pytest
import torch

from fastinterp import InputError
from fastinterp.evaluation import topk_intersection


@pytest.mark.parametrize("shape", [(5, 12), (5, 3, 4), (5, 2, 1, 6)])
@pytest.mark.parametrize("k", [1, 4, 12])
def test_against_sets(shape: tuple[int, ...], k: int) -> None:
    a, b = torch.rand(shape), torch.rand(shape)
    found = topk_intersection(a, b, k)
    for row in range(len(a)):
        left, right = (
            set(sorted(range(12), key=lambda i: -each[row].flatten()[i])[:k]) for each in (a, b)
        )
        assert found[row] == len(left & right) / k
    assert found.dtype == torch.float64
    assert torch.equal(topk_intersection(b, a, k), found)


def test_same_and_disjoint() -> None:
    a = torch.arange(8.0)[None]
    assert topk_intersection(a, 2 * a + 1, 3).tolist() == [1.0]
    assert topk_intersection(a, -a, 4).tolist() == [0.0]
    assert topk_intersection(a, -a, 5).tolist() == [0.4]


def test_ties_go_to_the_first_positions() -> None:
    a = torch.tensor([[1.0, 1, 1, 0], [0, 0, 0, 0], [2, 1, 1, 1]])
    b = torch.tensor([[0.0, 1, 1, 1], [4, 3, 2, 1], [1, 1, 1, 2]])
    # 01 and 12; 01 and 01; 01 and 30
    assert topk_intersection(a, b, 2).tolist() == [0.5, 1.0, 0.5]


def test_nan_and_no_rows() -> None:
    a, b = torch.rand(3, 4), torch.rand(3, 4)
    b[1, 2] = torch.nan
    assert topk_intersection(a, b, 2).isnan().tolist() == [False, True, False]
    assert topk_intersection(a[:0], b[:0], 2).shape == (0,)


@pytest.mark.parametrize("k", [0, -1, 13, 2.0, True])
def test_k_is_a_number_of_positions(k: object) -> None:
    with pytest.raises(InputError, match="integer from 1 to 12, the positions of a map"):
        topk_intersection(torch.rand(2, 3, 4), torch.rand(2, 3, 4), k)  # type: ignore[arg-type]


@pytest.mark.parametrize(("a", "b"), [((2, 3), (2, 4)), ((2, 3), (3, 3)), ((3,), (3,))])
def test_shapes_that_differ_are_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="of one shape on one device"):
        topk_intersection(torch.rand(a), torch.rand(b), 1)
