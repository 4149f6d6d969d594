"""Generated images beside the training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastinterp import InputError, data
from fastinterp.data import ImageData


def few(count: int = 4) -> ImageData:
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8)
    return ImageData(images, torch.arange(count) % 3, ("a", "b", "c"), "few")


def write(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("names", [("image", "label"), ("images", "labels"), ("x", "y")])
@pytest.mark.parametrize("channels_last", [True, False])
def test_files_as_their_authors_write_them(tmp_path: Path, names, channels_last: bool) -> None:
    more = few(7)
    images = more.images.numpy()
    images = images.transpose(0, 2, 3, 1) if channels_last else images
    path = write(tmp_path / "1m.npz", **{names[0]: images, names[1]: more.labels.numpy()})
    mixed = data.mix(few(), path, share=0.5)
    assert torch.equal(mixed.extra.images, more.images)
    assert torch.equal(mixed.extra.labels, more.labels)
    assert (mixed.extra.classes, mixed.extra.name) == (mixed.images.classes, "1m")


def test_bad_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = few(7).images.numpy(), np.arange(7) % 3
    bad = {
        "names": {"pictures": images, "label": labels},
        "float": {"image": images / 255, "label": labels},
        "few": {"image": images, "label": labels[:3]},
        "text": {"image": images, "label": labels.astype(str)},
        "small": {"image": images[..., :4], "label": labels},
        "none": {"image": images[:0], "label": labels[:0]},
        "class": {"image": images, "label": labels + 1},
        "object": {"image": images, "label": labels.astype(object)},
    }
    for name, arrays in bad.items():
        write(tmp_path / f"{name}.npz", **arrays)
    (tmp_path / "text.npz").write_bytes(b"PK no zip")
    for path in [*tmp_path.glob("*.npz"), tmp_path / "absent.npz"]:
        with pytest.raises(InputError) as error:
            data.mix(few(), path)
        assert "\n" not in str(error.value), path
    good = write(tmp_path / "good.npz", image=images, label=labels)
    with pytest.raises(InputError, match="share"):
        data.mix(few(), good, share=1.0)
    monkeypatch.setattr("fastinterp._utils.files._free_memory", lambda: 2 * images.nbytes)
    with pytest.raises(InputError, match="memory"):
        data.mix(few(), good)
