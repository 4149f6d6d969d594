"""Hostile files: pickles, checkpoints, data sets and images that are damaged or lie.

A reader gives what the file holds, or refuses it in one sentence within the bounds of harness.py.
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tempfile
import zlib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from harness import damage, refusals_allowed
from PIL import Image

from fastinterp import data, models


@cache
def released() -> bytes:
    """A network as the authors pickled theirs."""
    layers: list[Any] = []
    model = models.small(seed=0)
    for layer in model.layers:  # type: ignore[union-attr]
        weight = layer.weight.detach().permute(2, 3, 1, 0).contiguous().numpy()
        layers.append((weight, layer.bias.detach().numpy()))
    layers.append((model.weight.detach().t()[None, None].contiguous().numpy(),))
    return pickle.dumps(layers, protocol=3)


BOMBS = (
    b"\x80\x03" + b"]" + b"(" * 50 + b"K\x00" * 50 + b"e.",
    b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",  # a string of a terabyte
    b"\x80\x04r\xff\xff\xff\x7f" + b"N.",
    b"\x80\x03]q\x00" + b"(h\x00h\x00h\x00h\x00e" * 40 + b".",
    b"cos\nsystem\n(S'true'\ntR.",
    b"\x80\x03\x8a\xff" + b"\x7f" * 255 + b".",
    b"\x80\x05\x96" + struct.pack("<Q", 1 << 33) + b".",
    b"\x80\x03)q\x00" + b"(h\x00h\x00tq\x00" * 60 + b"}h\x00Ns.",
    b"\x80\x03)q\x00" + b"(h\x00h\x00tq\x00" * 60 + b"\x8f(h\x00\x90.",
    b"(" * 100_000 + b"t" * 100_000 + b".",
    b"]" * 100_000 + b"a" * 99_999 + b".",
)


def pickles(random: Random) -> None:
    whole = released()
    if random.random() < 0.15:
        content = random.choice(BOMBS)
    else:
        head = random.random() < 0.7  # opcodes lie at the front, in the main
        content = damage(whole[:400], random) + whole[400:] if head else damage(whole, random)
    _load(random, "network.pkl", content)


@cache
def checkpoint() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        models.save(models.small(1, 4, seed=0), path)
        return path.read_bytes()


def checkpoints(random: Random) -> None:
    whole = checkpoint()
    head = int.from_bytes(whole[:8], "little") + 8
    front = random.random() < 0.8
    content = damage(whole[:head], random) + whole[head:] if front else damage(whole, random)
    if random.random() < 0.3:  # the header's length stays true, its text does not
        text = damage(whole[8:head], random)
        content = len(text).to_bytes(8, "little") + text + whole[head:]
    _load(random, "network.safetensors", content)


def _load(random: Random, name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        how = random.random()
        if how < 0.02:
            os.mkfifo(path)
        elif how < 0.04:
            path.symlink_to("/dev/zero")
        else:
            path.write_bytes(content)
        with refusals_allowed():
            model = models.load(path)
            assert all(bool(weight.isfinite().all()) for weight in model.parameters())


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def mnist(random: Random) -> None:
    numbers = np.random.RandomState(0)
    parts = {
        "t10k-images-idx3-ubyte": _idx(numbers.randint(0, 256, (5, 28, 28)).astype(np.uint8)),
        "t10k-labels-idx1-ubyte": _idx(numbers.randint(0, 10, 5).astype(np.uint8)),
    }
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        spoilt = random.choice(list(parts))
        for name, content in parts.items():
            zipped = random.random() < 0.5
            if name == spoilt and not (zipped and random.random() < 0.5):
                content = damage(content, random)
            if name == spoilt and random.random() < 0.1:  # a bomb: much from little
                head = struct.pack(">I", random.choice((5, 400_000, 2**32 - 1)))
                content, zipped = content[:4] + head + content[8:16] + bytes(1 << 28), True
            packed = gzip.compress(content) if zipped else content
            if name == spoilt and zipped and random.random() < 0.5:
                packed = damage(packed, random)
            (raw / (name + ".gz" * zipped)).write_bytes(packed)
        with refusals_allowed():
            read = data.load("mnist", folder)
            assert read.images.shape[1:] == (1, 28, 28)
            assert int(read.labels.min()) >= 0 and int(read.labels.max()) <= 9


def cifar10(random: Random) -> None:
    records = np.random.RandomState(0).randint(0, 256, (4, 3073)).astype(np.uint8)
    records[:, 0] %= 10
    with tempfile.TemporaryDirectory() as folder:
        batches = Path(folder) / "cifar-10-batches-bin"
        batches.mkdir()
        (batches / "test_batch.bin").write_bytes(damage(records.tobytes(), random))
        with refusals_allowed():
            read = data.load("cifar10", folder, allow_partial=True)
            assert int(read.labels.max()) <= 9


FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "PCX", "TGA", "ICO")
READ = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
PIXELS = np.random.RandomState(0).randint(0, 256, (12, 10, 3)).astype(np.uint8)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def images(random: Random) -> None:
    """A folder of classes in which one picture is not what it seems."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photos"
        for name in ("cat", "dog"):
            (root / name).mkdir(parents=True)
            Image.fromarray(PIXELS).save(root / name / "a.png")
        path = root / "cat" / random.choice(("b.png", "b.jpg", "b.tiff"))
        kinds = (damaged, of_any_kind, deep, huge, no_file, linked)
        kind = random.choices(kinds, (6, 2, 2, 1, 1, 1))[0]
        count = kind(random, path)
        read = None
        with refusals_allowed():
            read = data.load("imagefolder", root, size=16)
            assert read.images.shape[1:] == (3, 16, 16)
        assert count is None or count == (len(read) if read else 0), f"not {count} images"


def damaged(random: Random, path: Path) -> None:
    path.write_bytes(damage(encoded(Image.fromarray(PIXELS), random.choice(FORMATS)), random))


def of_any_kind(random: Random, path: Path) -> int:
    """Returns how many images of the folder may be read, in each of these functions."""
    kind = random.choice((*FORMATS, "PostScript"))
    whole = POSTSCRIPT if kind == "PostScript" else encoded(Image.fromarray(PIXELS), kind)
    path.write_bytes(whole)
    return 3 if kind in READ else 0


def deep(random: Random, path: Path) -> int:
    """More than 8 bits: a grey PNG is scaled, all else is refused."""
    dtype, kind = random.choice(
        ((np.uint16, "PNG"), (np.uint16, "TIFF"), (np.float32, "TIFF"), (np.int32, "TIFF"))
    )
    path.write_bytes(encoded(Image.fromarray(PIXELS[..., 0].astype(dtype)), kind))
    return 3 if kind == "PNG" else 0


def huge(random: Random, path: Path) -> int:
    """The header of another size."""
    side = random.choice((20_000, 100_000, 2**31 - 1))
    content = bytearray(encoded(Image.fromarray(PIXELS), "PNG"))
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    return 0


def no_file(random: Random, path: Path) -> int | None:
    how = random.randrange(4)
    if how == 0:
        os.mkfifo(path)
    elif how == 1:
        path.symlink_to("/dev/zero")
    elif how == 2:
        path.symlink_to(path)
    else:
        path.mkdir()
        return 2
    return 0


def linked(random: Random, path: Path) -> int:
    """Links to folders that hold the class, or were read before."""
    for number in range(random.randrange(1, 5)):
        target = random.choice((path.parent, path.parents[1], path.parents[2], Path("/")))
        (path.parent / f"link{number}").symlink_to(target)
    return 2
