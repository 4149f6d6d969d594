"""The handwritten digits that come with scikit-learn: small, real, and always there."""

from __future__ import annotations

import numpy as np

from .dataset import ImageData, from_arrays

_TRAIN = 1437  # of 1797


def read(split: str) -> ImageData:
    """scikit-learn's digits: 1437 images to train on, 360 to test.

    The images are kept in their official order and the last 360 are the test split: they were
    written by other people than most of the first, which a random split would mix. Their 17 grey
    levels are spread over 0..255, and 8x8 pixels become 28x28 (bilinear), MNIST's size.
    """
    from sklearn.datasets import load_digits

    part = slice(_TRAIN) if split == "train" else slice(_TRAIN, None)
    source = load_digits()
    grey = np.round(source.images[part] * (255 / 16)).astype(np.uint8)
    digits = from_arrays(grey, source.target[part], [str(d) for d in range(10)], "digits")
    return digits.resized(28)
