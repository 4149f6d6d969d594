"""What `fit` trains on: every kind of data, each image once an epoch, bad data refused first."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from fastinterp import InputError, models
from fastinterp.data import ImageData
from fastinterp.training import NormalTrainer


def test_kinds_of_data_agree(make_tiny, make_data) -> None:
    x, y = make_data(24)
    bytes_ = (x * 255).round().byte()
    kinds = {
        "bytes": (bytes_, y),
        "floats": (bytes_.float() / 255, y),
        "images": ImageData(bytes_, y, ("a", "b", "c", "d")),
        "shorts": (bytes_, y.short()),
    }
    weights = {}
    for name, data in kinds.items():
        model = make_tiny()
        NormalTrainer(model, lr=0.01).fit(data, epochs=2, batch_size=8, progress=False)
        weights[name] = torch.nn.utils.parameters_to_vector(model.parameters())
    assert all(torch.equal(w, weights["bytes"]) for w in weights.values())


def test_each_epoch_sees_each_image_once_in_another_order(
    make_tiny, make_data, watch_steps
) -> None:
    seen = []
    watch_steps(before=lambda trainer, x: seen.append(x.flatten(1).sum(1)))
    x, y = make_data(24)
    NormalTrainer(make_tiny()).fit((x, y), epochs=2, batch_size=8, progress=False)
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert torch.equal(first.sort().values, x.flatten(1).sum(1).sort().values)
    assert torch.equal(first.sort().values, second.sort().values)
    assert not torch.equal(first, second)


def test_a_small_data_set_is_one_batch(make_tiny, make_data) -> None:
    (row,) = NormalTrainer(make_tiny()).fit(make_data(5), epochs=1, progress=False)
    assert (row["step"], row["images"]) == (1, 5)


def load(*tensors: Tensor) -> DataLoader:
    return DataLoader(TensorDataset(*tensors), batch_size=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x * 3, y), r"pixels must lie in \[0, 1\]"),
        (lambda x, y: (x, y + 1), r"labels must lie in 0\.\.3"),
        (lambda x, y: (x, y[:3]), "labels must have shape"),
        (lambda x, y: (x[:0], y[:0]), "data holds no images"),
        (lambda x, y: [x, y], "must be an ImageData"),
        (lambda x, y: 3, "must be an ImageData"),
        (lambda x, y: (x.tolist(), y), "x must be a floating-point tensor, got list"),
        (lambda x, y: (x.double(), y), "the model and x must have the same dtype"),
        (lambda x, y: (x[:, 0], y), r"x must be images \[N, C, H, W\], got shape"),
        (lambda x, y: load(x, y + 1), r"labels must lie in 0\.\.3"),
        (lambda x, y: load(x.half(), y), "must have the same dtype"),
        (lambda x, y: load(255 * x, y), r"pixels must lie in \[0, 1\]"),
        (lambda x, y: load((255 * x).byte(), y), "x must be a floating-point tensor"),
        (lambda x, y: load(x), r"a batch .* pair \(images, labels\), got 1 parts\.$"),
        (lambda x, y: DataLoader(x, batch_size=8), r"got Tensor\.$"),
    ],
)
@pytest.mark.parametrize("name", ["train_data", "val_data"])
def test_bad_data_are_refused_before_the_first_step(
    make_tiny, make_data, name: str, change, message: str
) -> None:
    good, trainer = make_data(8), NormalTrainer(make_tiny())
    data = {"train_data": good, name: change(*good)}
    with pytest.raises(InputError, match=message) as error:
        trainer.fit(**data, epochs=1, batch_size=8, progress=False)
    # A step sees what a DataLoader yields only when it is there.
    assert str(error.value).startswith((name, "training_step"))
    assert trainer.step == 0


def test_the_number_of_channels_is_checked_before_the_first_step() -> None:
    colour = torch.zeros(8, 3, 28, 28), torch.zeros(8, dtype=torch.int64)
    grey = colour[0][:, :1], colour[1]
    for train, val, name in ((colour, None, "train"), (grey, colour, "val")):
        trainer = NormalTrainer(models.small())
        with pytest.raises(InputError, match=rf"^{name}_data: x must be images \[N, 1, H, W\]"):
            trainer.fit(train, epochs=1, val_data=val, progress=False)
        assert trainer.step == 0
