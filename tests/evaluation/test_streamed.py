"""Measuring on loaders and streams, and figures that say little: marked, warned of, refused."""

from __future__ import annotations

import ctypes
import os
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fastinterp import InputError, data
from fastinterp.evaluation import (
    aai_sweep,
    accuracy_table,
    audit,
    corruption_sweep,
    explain,
    sweep,
)
from fastinterp.interpreters import CAM
from fastinterp.models import GapClassifier

SETTINGS = {"eps": [0.05, 0.02, 0.0], "steps": [6, 2]}


class Streamed(IterableDataset):
    """Images of a tensor, without a length."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __iter__(self):
        return iter(zip(self.x, self.y, strict=True))


@pytest.mark.parametrize("protocol", ["paper", "best"])
def test_a_loader_gives_the_figures_of_its_images(make_problem, protocol: str) -> None:
    model, x, y = make_problem(24)
    settings = SETTINGS | ({"step_size": 0.03} if protocol == "paper" else {})
    expected = sweep(model, x, y, protocol=protocol, batch_size=7, **settings)
    assert len({row["accuracy"] for row in expected}) > 2
    for source in (
        DataLoader(TensorDataset(x, y), 5),
        DataLoader(Streamed(x, y), 5),
        zip(x.split(9), y.split(9), strict=True),
        iter([(x[:0], y[:0]), (x, y)]),
    ):
        assert sweep(model, source, protocol=protocol, **settings) == expected


def test_an_audit_reads_a_loader_again_and_again(make_problem) -> None:
    model, x, y = make_problem(24)
    settings = {"eps": 0.03, "steps": (1, 3), "progress": False}
    expected = audit(model, x, y, **settings)
    bytes_ = data.ImageData((255 * x).byte(), y, ("a", "b", "c"))
    held = audit(model, bytes_.float(), y, **settings)
    assert audit(model, DataLoader(Streamed(x, y), 7), **settings) == expected
    assert audit(model, bytes_, **settings) == held
    with pytest.raises(InputError, match="again and again"):
        audit(model, iter([(x, y)]), **settings)


def test_bad_loaders_are_refused(make_problem) -> None:
    model, x, y = make_problem(24)
    for source, labels, says in (
        (DataLoader(TensorDataset(x, y), 5), y, "leave labels out"),
        (x, None, "labels are missing"),
        (DataLoader(TensorDataset(x), 5), None, "pairs"),
        (DataLoader(TensorDataset(x, y + 3), 5), None, r"0\.\.2"),
        (DataLoader(TensorDataset(5 * x - 2, y), 5), None, "normalisation belongs inside"),
        ([], None, "no images"),
        (3, None, "got int"),
    ):
        with pytest.raises(InputError, match=says) as error:
            sweep(model, source, labels, eps=0.1, steps=1, step_size=0.2)
        assert "\n" not in str(error.value)


class Squares(GapClassifier):
    """224x224 images of three channels -> 4 maps of 7x7 -> 2 classes, at little cost."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 32, stride=32)
        self.weight, self.bias = nn.Parameter(torch.rand(2, 4)), None

    def features(self, x: Tensor) -> Tensor:
        return self.conv(x)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_memory_stays_flat_over_many_files(tmp_path: Path) -> None:
    """240 images of 224x224: 36 MB as bytes, 144 MB as floats."""
    for name in ("a", "b"):
        (tmp_path / "val" / name).mkdir(parents=True)
        for i in range(120):
            pixels = torch.randint(0, 256, (6, 6, 3), dtype=torch.uint8).numpy()
            Image.fromarray(pixels).resize((64, 64)).save(tmp_path / "val" / name / f"{i}.jpg")
    used, trim = [], ctypes.CDLL(None).malloc_trim

    class Watched(Squares):
        def features(self, x: Tensor) -> Tensor:
            trim(0)  # what was freed goes back to the system and is not counted
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            used.append(pages * os.sysconf("SC_PAGE_SIZE"))
            return super().features(x)

    stream = data.stream("imagefolder", tmp_path)
    (row,) = sweep(Watched(), stream, eps=0.01, steps=1, batch_size=3, progress=False)
    assert row["n"] == 240
    part = len(used) // 4  # what is held raises the least that is used; a batch comes and goes
    assert min(used[-part:]) - min(used[part : 2 * part]) < 10e6


def short(rows: list) -> list[tuple[float, int]]:
    return [(row["eps"], row["steps"]) for row in rows if row.get("short_of_eps")]


@pytest.mark.filterwarnings("error")
def test_what_cannot_reach_the_boundary_is_marked_and_warned_of(make_problem) -> None:
    model, x, y = make_problem(8)
    settings = {"eps": [0.05, 0.3, 0.0], "steps": [3, 40]}
    with pytest.warns(UserWarning, match=r"3 x 0\.01 .* 1 more cell\(s\), .* cannot reach") as seen:
        rows = sweep(model, x, y, **settings)
    assert len(seen) == 1
    assert short(rows) == [(0.05, 3), (0.3, 3)]
    _, body = accuracy_table(rows)
    assert [[cell.endswith(" *") for cell in line[1:]] for line in body] == [
        [True, False],
        [True, False],
        [False, False],
    ]
    with warnings.catch_warnings():  # `best` also takes steps of 2.5 eps / steps, as l2 does
        warnings.simplefilter("error")
        assert short(sweep(model, x, y, protocol="best", **settings)) == []
        assert short(sweep(model, x, y, eps=[2.0], steps=[4], norm="l2")) == []
        assert short(sweep(model, x, y, eps=[0.04], steps=[4])) == []  # 4 x 0.01
    with pytest.warns(UserWarning, match="cannot reach"):
        assert short(sweep(model, x, y, eps=[2.0], steps=[4], norm="l2", step_size=0.1)) == [(2, 4)]
    with pytest.warns(UserWarning, match="cannot reach"):  # without steps these are clean images
        assert short(sweep(model, x, y, eps=[0.1], steps=[0])) == [(0.1, 0)]


@pytest.mark.filterwarnings("error")
def test_other_attacks_are_marked_too(make_problem) -> None:
    model, x, y = make_problem(4)
    settings = {"eps": [0.02, 0.1], "steps": 3, "k": 2, "progress": False}
    with pytest.warns(UserWarning, match="^aai_sweep: .* cannot reach"):
        assert short(aai_sweep(model, CAM(model), x, y, **settings)) == [(0.1, 3)]
    jpeg = {"attack": "jpeg-linf", "eps": [1.0], "steps": [4], "progress": False}
    with pytest.warns(UserWarning, match="^corruption_sweep: .* cannot reach"):
        rows = corruption_sweep(model, x, y, (y + 1) % 3, step_size=0.1, **jpeg)
    assert short(rows) == [(1.0, 4)]
    assert short(corruption_sweep(model, x, y, (y + 1) % 3, **jpeg)) == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_every_attack_of_an_audit_reaches_the_boundary(make_problem, norm: str) -> None:
    model, x, y = make_problem(4)
    audit(model, x, y, eps=0.3, steps=(1, 2, 7), norm=norm, progress=False)


def test_a_linf_eps_above_1_is_refused(make_problem) -> None:
    model, x, y = make_problem(4)
    for call in (
        lambda eps: sweep(model, x, y, eps=eps, steps=10),
        lambda eps: aai_sweep(model, CAM(model), x, y, eps=eps, k=2),
        lambda eps: explain(model, x, y, eps=eps),
    ):
        with pytest.raises(InputError, match="8/255"):
            call(8)


def test_an_audit_reads_a_stream_for_each_attack(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            pixels = torch.randint(0, 256, (6, 6, 3), dtype=torch.uint8).numpy()
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    stream, model = data.stream("imagefolder", tmp_path, size=32), Squares()
    settings = {"eps": 0.01, "steps": (1, 2), "progress": False, "batch_size": 4}
    assert audit(model, stream, **settings) == audit(
        model, stream.float(), stream.labels, **settings
    )
