"""Which images are measured, and which attacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastinterp import models
from fastinterp._utils.errors import InputError
from fastinterp.evaluation import ISA_SEED, PROTOCOLS, default_step_size, paper_selection
from fastinterp.evaluation.ensembles import Budget


@pytest.mark.parametrize("seed", [99, ISA_SEED])
@pytest.mark.parametrize("num_classes", [2, 10])
def test_selection_is_that_of_numpys_global_generator(seed: int, num_classes: int) -> None:
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    indices = np.random.permutation(1000)[:200]  # noqa: NPY002
    offsets = 1 + np.random.randint(num_classes - 1, size=200)  # noqa: NPY002
    np.random.set_state(before)  # noqa: NPY002

    found_indices, found_offsets = paper_selection(1000, seed=seed, num_classes=num_classes)

    assert found_indices.tolist() == indices.tolist()
    assert found_offsets.tolist() == offsets.tolist()


def test_selection_leaves_the_global_generator_alone() -> None:
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    paper_selection(50, n=10)
    assert np.random.rand() == expected  # noqa: NPY002


def test_fewer_images_are_the_first_ones_and_targets_are_never_the_true_class() -> None:
    indices, offsets = paper_selection(500, num_classes=3)
    assert paper_selection(500, n=20)[0].tolist() == indices[:20].tolist()
    assert len(set(indices.tolist())) == 200
    assert sorted(set(offsets.tolist())) == [1, 2]


@pytest.mark.parametrize(("n_test", "n", "num_classes"), [(10, 11, 10), (10, 0, 10), (10, 5, 1)])
def test_impossible_selections_are_refused(n_test: int, n: int, num_classes: int) -> None:
    with pytest.raises(InputError):
        paper_selection(n_test, n, num_classes=num_classes)


def test_protocols_name_their_attacks_in_turn() -> None:
    model, budget = models.small(seed=0), Budget("linf", 0.1, 60, 0.01)
    names = {name: list(one.attacks(model, budget, 10)) for name, one in PROTOCOLS.items()}
    assert names["paper"] == ["pgd"]
    objectives = ["margin", "ce", "1st", "2nd", "3rd", "4th"]
    wide = ["wide-margin", "wide-1st"]
    assert names["best"] == [*(f"apgd-{each}" for each in objectives), *wide, "square"]
    assert names["autoattack"] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    for norm in ("l2", "l1"):
        found = list(PROTOCOLS["best"].attacks(model, Budget(norm, 0.1, 60, 0.01), 10))
        assert found == [*(f"wide-{each}" for each in objectives), "apgd-margin", "square"]


def test_step_sizes() -> None:
    assert default_step_size("linf", 8 / 255, 10) == 0.01
    assert default_step_size("l2", 2.0, 10) == pytest.approx(0.5)


def test_offsets_have_the_type_that_labels_have() -> None:
    indices, offsets = paper_selection(30, n=4)
    assert indices.dtype == offsets.dtype == torch.int64
