"""Augmentation of images in memory: what it does, and that seed and epoch decide it."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from fastinterp import InputError, data, models
from fastinterp.data import ImageData
from fastinterp.training import NormalTrainer, load_recipe, run_recipe
from fastinterp.training.augment import Augmentation, crop_flip
from fastinterp.training.batches import ArrayBatches

pytestmark = pytest.mark.usefixtures("one_thread")


def test_each_image_is_cropped_and_mirrored_by_itself() -> None:
    """Against pad, slice and flip, one image at a time."""
    x = torch.rand(64, 3, 32, 24)
    draws = torch.rand(3, 64)
    found, shifts = crop_flip(x, draws), set()
    for image, changed, (down, right, flip) in zip(x, found, draws.T.tolist(), strict=True):
        padded = torch.zeros(3, 40, 30)
        padded[:, 4:36, 3:27] = image
        top, left = int(down * 9), int(right * 7)
        expected = padded[:, top : top + 32, left : left + 24]
        assert torch.equal(changed, expected if flip < 0.5 else expected.flip(2))
        shifts.add((top, left, flip < 0.5))
    assert len(shifts) > 30
    centred = torch.tensor([[0.5], [0.5], [0.0]])
    assert torch.equal(crop_flip(x[:1], centred), x[:1])


@pytest.mark.parametrize("augment", ["crop-flip", v2.RandomCrop(8, padding=2)])
def test_seed_and_epoch_decide(augment) -> None:
    x = torch.rand(8, 1, 8, 8)

    def change(seed: int, epoch: int, first: int = 0) -> Tensor:
        torch.manual_seed(first)
        before = torch.get_rng_state()
        changed = Augmentation(augment, seed).epoch(epoch, 16, x.device)(x, first)
        assert torch.equal(torch.get_rng_state(), before)
        assert changed.shape == x.shape
        return changed

    found = [change(*each) for each in ((0, 0), (1, 0), (0, 1), (0, 0, 8))]
    assert all(not torch.equal(found[0], other) for other in found[1:])
    assert torch.equal(change(0, 0), found[0])


def press_at(step: int):
    return lambda trainer, x: trainer.step == step and signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("kind", ["crop-flip", "callable", "mixed"])
def test_a_stopped_run_goes_on_bit_for_bit(
    kind: str, tmp_path: Path, make_tiny, make_data, watch_steps, monkeypatch
) -> None:
    x, y = make_data(40)
    own = ImageData((255 * x).byte(), y, tuple("abcd"))
    train = data.mix(own, own.subset(slice(0, 9)), 0.5) if kind == "mixed" else own
    augment = v2.RandomCrop(8, padding=1) if kind == "callable" else "crop-flip"

    def run(out: Path | None, seed: int = 0):
        trainer = NormalTrainer(make_tiny(), lr=0.01, seed=seed)
        settings = {"batch_size": 8, "augment": augment, "out": out, "resume": True}
        trainer.fit(train, 3, progress=False, **settings)
        return torch.nn.utils.parameters_to_vector(trainer.model.parameters())

    whole = run(None)
    assert not torch.equal(run(None, seed=1), whole)
    with monkeypatch.context() as patch:
        watch_steps(before=press_at(7))  # within the second epoch
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run")
        patch.undo()
    monkeypatch.undo()
    assert torch.equal(run(tmp_path / "run"), whole)


def test_a_run_is_resumed_with_its_augmentation_only(tmp_path: Path, make_tiny, make_data) -> None:
    settings = {"batch_size": 8, "out": tmp_path, "progress": False, "resume": True}
    NormalTrainer(make_tiny()).fit(make_data(16), 1, augment="crop-flip", **settings)
    with pytest.raises(InputError, match="augment = 'crop-flip', not None"):
        NormalTrainer(make_tiny()).fit(make_data(16), 2, **settings)


@pytest.mark.parametrize(
    ("augment", "says"),
    [
        ("flip", 'must be "crop-flip"'),
        (lambda x: x[:1], "as many images"),
        (lambda x: 3 * x, r"pixels must lie in \[0, 1\]"),
        (lambda x: None, "got NoneType"),
    ],
)
def test_bad_augmentations_are_refused(make_tiny, make_data, augment, says: str) -> None:
    with pytest.raises(InputError, match=says):
        NormalTrainer(make_tiny()).fit(make_data(8), 1, augment=augment, progress=False)


def test_batches_hold_the_share_of_extra_images(make_tiny, make_data, watch_steps) -> None:
    """Training images are white, extra ones black: 7 of 10 in each batch, as in the field."""
    white = ImageData(torch.full((45, 1, 8, 8), 255, dtype=torch.uint8), *labels(45))
    black = ImageData(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), *labels(6))
    seen = []
    watch_steps(before=lambda trainer, x: seen.append(x.flatten(1)[:, 0].tolist()))
    rows = NormalTrainer(make_tiny()).fit(
        data.mix(white, black, 0.7), 2, batch_size=10, progress=False
    )
    assert [len(batch) for batch in seen] == [10] * 8  # 45 // 10 in each epoch
    assert all(sum(batch) == 3 for batch in seen)
    assert [row["images"] for row in rows] == [40, 40]


def labels(count: int) -> tuple[Tensor, tuple[str, ...]]:
    return torch.arange(count) % 4, tuple("abcd")


@pytest.mark.parametrize("cut", [3, 5, 8])
def test_two_shares_of_each_batch_are_the_batch(make_data, cut: int) -> None:
    """As two processes read them: 5 own images and 5 extra ones, augmented alike."""
    x, y = make_data(40)

    def epoch(part: slice | None) -> list[Tensor]:
        change = Augmentation("crop-flip", 0)
        batches = ArrayBatches(x, y, 10, 0, None, change, (x[:7], y[:7]), 0.5)
        batches.part = part or batches.part
        return [torch.cat([x.flatten(1), y[:, None]], 1) for x, y in batches.epoch(1, 1)]

    parts = zip(epoch(slice(0, cut)), epoch(slice(cut, 10)), strict=True)
    for whole, (first, second) in zip(epoch(None), parts, strict=True):
        assert len(first) == cut and torch.equal(torch.cat([first, second]), whole)


def test_recipes_have_both(tmp_path: Path, watch_steps) -> None:
    """Of a data set in memory, here digits and black images as the generated ones."""
    black = np.zeros((5, 28, 28, 1), np.uint8)
    np.savez(tmp_path / "black.npz", image=black, label=np.arange(5))
    seen = []
    watch_steps(before=lambda trainer, x: seen.append(x.flatten(1).amax(1)))
    changes = {"extra": str(tmp_path / "black.npz"), "extra_share": 0.25, "augment": "crop-flip"}
    changes |= {"epochs": 1, "batch_size": 8, "train_images": 16}
    recipe = load_recipe("digits-small-normal", changes)
    run_recipe(recipe, out=tmp_path / "run", device="cpu", progress=False)
    assert [int((batch == 0).sum()) for batch in seen] == [2, 2]
    settings = models.info(tmp_path / "run" / "model.safetensors")["settings"]
    assert (settings["augment"], settings["share"], settings["extra_images"]) == (
        *("crop-flip", 0.25, 5),
    )
    assert load_recipe("cifar10-int", ["augment=crop-flip"]).augment == "crop-flip"
    with pytest.raises(InputError, match="augment must be one of '', 'crop-flip'"):
        load_recipe("cifar10-int", ["augment=flip"])
