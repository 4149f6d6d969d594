"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from .dataset import ImageData, from_arrays

_TRAIN = 1437  # of 1797


def read(split: str) -> ImageData:
    """1437 images to train on, 360 to test, [N, 1, 28, 28].

    The test split is the last 360 in the official order, because other people wrote most of them; a
    random split would mix the writers. The 17 grey levels are mapped to 0..255 and the 8x8 pixels
    are resized to 28x28 (bilinear), the size of MNIST.
    """
    from sklearn.datasets import load_digits

    part = slice(_TRAIN) if split == "train" else slice(_TRAIN, None)
    source = load_digits()
    grey = np.round(source.images[part] * (255 / 16)).astype(np.uint8)
    return from_arrays(grey, source.target[part], "0123456789", "digits").resized(28)
