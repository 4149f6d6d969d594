"""The digits that are built in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from written import refusal

from fastinterp import data


def test_digits_are_always_there() -> None:
    train, test = data.load("digits", split="train"), data.load("digits")
    assert train.images.shape == (1437, 1, 28, 28)
    assert test.images.shape == (360, 1, 28, 28)
    assert train.classes == test.classes == tuple("0123456789")
    for part in (train, test):
        assert part.images.min() == 0
        assert part.images.max() == 255
        assert set(part.labels.tolist()) == set(range(10))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_in_the_place_of_the_folder_is_refused(split: str, monkeypatch, tmp_path) -> None:
    assert f"split={split!r}" in refusal("digits", split)
    monkeypatch.chdir(tmp_path)
    assert f"split={split!r}" in refusal("mnist", split)
    (tmp_path / split).mkdir()  # a folder of that name is a folder
    assert "expected" in refusal("mnist", split)


@pytest.mark.parametrize("size", ["28", 28.5, True])
def test_a_size_that_is_no_whole_number_is_refused(size: Any) -> None:
    assert "size must be a whole number" in refusal("digits", size=size)


def test_digits_keep_their_pictures_and_their_official_order() -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    both = [data.load("digits", split=split) for split in ("train", "test")]
    labels = torch.cat([part.labels for part in both])
    np.testing.assert_array_equal(labels.numpy(), source.target)
    images = torch.cat([part.images for part in both])[:, 0].numpy()
    for ours, grey in zip(images, source.images, strict=True):
        picture = Image.fromarray(np.round(grey * (255 / 16)).astype(np.uint8))
        expected = np.asarray(picture.resize((28, 28), Image.Resampling.BILINEAR), np.int16)
        assert abs(ours - expected).max() <= 1  # rounded differently


def test_no_digit_is_in_both_splits() -> None:
    train, test = data.load("digits", split="train"), data.load("digits")
    both = torch.cat([train.images, test.images]).flatten(1)
    assert len(torch.unique(both, dim=0)) == len(both)
