"""Training on data that nobody holds: loaders with and without a length, and streams of files."""

from __future__ import annotations

import ctypes
import io
import os
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchvision.transforms.v2.functional import pil_to_tensor

from fastinterp import InputError, data
from fastinterp.models import GapClassifier
from fastinterp.training import IntTrainer, NormalTrainer

pytestmark = pytest.mark.usefixtures("one_thread")


class Endless(IterableDataset):
    """So many images, without a length; the n-th has pixels n / 100."""

    def __init__(self, count: int) -> None:
        self.count, self.passes = count, 0

    def __iter__(self):
        self.passes += 1
        for number in range(self.count):
            yield torch.full((1, 8, 8), number / 100), number % 4


@pytest.fixture
def pixels(watch_steps) -> list[list[int]]:
    """100 x the first pixel of each image, batch by batch, as the steps see them."""
    seen: list[list[int]] = []
    watch_steps(before=lambda trainer, x: seen.append((100 * x[:, 0, 0, 0]).round().int().tolist()))
    return seen


def fit(trainer, train, epochs: int = 1, **settings):
    return trainer.fit(train, epochs, progress=False, **settings)


def test_an_epoch_goes_on_where_the_last_one_ended(make_tiny, pixels) -> None:
    endless = Endless(10)
    rows = fit(NormalTrainer(make_tiny()), DataLoader(endless, 4), 2, steps_per_epoch=4)
    assert pixels[:3] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert pixels[3:6] == pixels[:3] and len(pixels) == 8
    assert [(row["step"], row["images"]) for row in rows] == [(4, 14), (8, 12 + 2)]
    assert endless.passes == 3


def test_data_without_a_length_need_steps(make_tiny) -> None:
    trainer = NormalTrainer(make_tiny())
    with pytest.raises(InputError, match="steps_per_epoch="):
        fit(trainer, DataLoader(Endless(10), 4))
    with pytest.raises(InputError, match="gave no batch"):
        fit(trainer, DataLoader(Endless(0), 4), steps_per_epoch=2)
    with pytest.raises(InputError, match="steps_per_epoch must be at least 1"):
        fit(trainer, DataLoader(Endless(9), 4), steps_per_epoch=0)


def test_validation_needs_no_length(make_tiny, make_data) -> None:
    x, y = make_data(22)
    model = make_tiny()
    for val in (DataLoader(Endless(10), 4), DataLoader(TensorDataset(x, y), 4)):
        (row,) = fit(NormalTrainer(model), make_data(8), val_data=val)
        batches = [(model.eval()(images).argmax(1) == labels).float() for images, labels in val]
        assert row["val_accuracy"] == pytest.approx(float(torch.cat(batches).mean()))
        model.train()


@pytest.mark.parametrize("kind", ["loader", "memory", "stream"])
def test_steps_per_epoch_shortens_an_epoch(kind: str, make_tiny, make_data, tmp_path) -> None:
    x, y = make_data(24)
    train = (x, y)
    if kind == "loader":
        train = DataLoader(TensorDataset(x, y), 8)
    if kind == "stream":
        train = pictures(tmp_path, 12)
    batch_size = None if kind == "loader" else 8
    extra = {} if batch_size is None else {"batch_size": batch_size}
    rows = fit(NormalTrainer(make_tiny()), train, 2, steps_per_epoch=2, **extra)
    assert [row["images"] for row in rows] == [16, 16]
    if kind != "loader":
        with pytest.raises(InputError, match="must be at most 3"):
            fit(NormalTrainer(make_tiny()), train, steps_per_epoch=4, **extra)


def test_loaders_of_other_libraries_are_iterables(make_tiny, make_data, pixels) -> None:
    class Loader:
        def __iter__(self):
            return iter(DataLoader(Endless(8), 4))

    fit(NormalTrainer(make_tiny()), Loader(), steps_per_epoch=3)
    assert pixels == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3]]


def test_samplers_hear_of_the_epoch(make_tiny, make_data) -> None:
    heard = []

    class Sampler(torch.utils.data.SequentialSampler):
        def set_epoch(self, epoch: int) -> None:
            heard.append(epoch)

    dataset = TensorDataset(*make_data(8))
    trainer = NormalTrainer(make_tiny())
    for _ in range(2):
        fit(trainer, DataLoader(dataset, 4, sampler=Sampler(dataset)), 2)
    assert heard == [0, 1, 2, 3]


def test_calls_of_fit_go_on_with_new_orders(make_tiny, pixels) -> None:
    x = torch.arange(12).div(100)[:, None, None, None].expand(-1, 1, 8, 8)
    y = torch.arange(12) % 4
    looped, once = make_tiny(), make_tiny()
    trainer = NormalTrainer(looped, lr=0.01)
    for _ in range(3):
        fit(trainer, (x, y), batch_size=4)
    assert len({str(pixels[first : first + 3]) for first in (0, 3, 6)}) == 3
    fit(NormalTrainer(once, lr=0.01), (x, y), 3, batch_size=4)
    assert pixels[:9] == pixels[9:]
    for a, b in zip(looped.parameters(), once.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_second_call_is_resumed_in_its_own_order(tmp_path, make_tiny, make_data) -> None:
    def run(resumed: bool) -> Tensor:
        trainer = NormalTrainer(make_tiny(), lr=0.01)
        fit(trainer, make_data(24), batch_size=8)
        out = tmp_path / str(resumed)
        fit(trainer, make_data(24), 1 if resumed else 2, batch_size=8, out=out)
        if resumed:  # by another process
            trainer = NormalTrainer(make_tiny(), lr=0.01)
            fit(trainer, make_data(24), 2, batch_size=8, out=out, resume=True)
        assert trainer.epoch == 3
        return nn.utils.parameters_to_vector(trainer.model.parameters())

    assert torch.equal(run(True), run(False))


class Squares(GapClassifier):
    """224x224 images of three channels -> 4 maps of 7x7 -> 4 classes, at little cost."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 32, stride=32)
        self.weight, self.bias = nn.Parameter(torch.rand(4, 4)), None

    def features(self, x: Tensor) -> Tensor:
        return self.conv(x)


def pictures(folder: Path, each: int, size: int = 8, side: int = 8, **settings):
    """A stream of 2 x so many JPEGs; `each` names of one file's content."""
    generator = torch.Generator().manual_seed(0)
    for name in ("a", "b"):
        (folder / "train" / name).mkdir(parents=True)
        for i in range(each):
            if i < 8:
                shades = torch.randint(0, 256, (4, 4, 3), generator=generator, dtype=torch.uint8)
                held = io.BytesIO()
                Image.fromarray(shades.numpy()).resize((side, side)).save(held, "JPEG")
            (folder / "train" / name / f"{i}.jpg").write_bytes(held.getvalue())
    grey = {} if size > 8 else {"transform": Grey()}
    return data.stream("imagefolder", folder, "train", size=size, **(grey | settings))


class Grey:
    def __call__(self, image: Image.Image) -> Tensor:
        wobble = torch.randint(0, 20, (1, 8, 8), dtype=torch.uint8)  # a random transform
        return pil_to_tensor(image.convert("L")) // 2 + wobble


def test_a_stream_stopped_within_an_epoch_goes_on_bit_for_bit(
    tmp_path: Path, make_tiny, watch_steps, monkeypatch
) -> None:
    stream = pictures(tmp_path, 12)

    def run(out: Path | None) -> Tensor:
        trainer = NormalTrainer(make_tiny(), lr=0.01)
        fit(trainer, stream, 2, batch_size=5, out=out, resume=True)
        return nn.utils.parameters_to_vector(trainer.model.parameters())

    whole = run(None)
    watch_steps(before=lambda trainer, x: trainer.step == 6 and signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run")
    monkeypatch.undo()
    assert torch.equal(run(tmp_path / "run"), whole)


def resident() -> int:
    """Bytes of this process in memory, after what was freed went back to the system."""
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_memory_stays_flat_over_many_files(tmp_path: Path, watch_steps) -> None:
    """300 images of 224x224: 45 MB as bytes, 181 MB as floats."""
    stream = pictures(tmp_path, 150, size=224, side=64)
    used = []
    watch_steps(before=lambda trainer, x: used.append(resident()))
    trainer = IntTrainer(Squares(), eps=0.01, steps=1, step_size=0.01)
    (row,) = fit(trainer, stream, batch_size=5)
    assert row["images"] == len(stream) == 300 and len(used) == 60
    # What is held raises the least that is used; a batch comes and goes.
    assert min(used[-15:]) - min(used[15:30]) < 10e6
