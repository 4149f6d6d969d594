"""Random numbers for each image that depend on the image and a seed, and on nothing else.

An attack that draws from one generator for a whole batch gives an image another start, and maybe
another verdict, in another batch. Here an image's draws follow from its pixels, so that batches,
their order, devices and the number of processes change nothing. All arithmetic is int64 and wraps
around, which is the same on every device.
"""

from __future__ import annotations

import math
from hashlib import blake2b

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # splitmix64 (Steele et al., 2014)
MIX = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def image_seeds(x: Tensor, seed: int, purpose: str = "") -> Tensor:
    """Images x [N, ...] -> seeds [N], int64: a hash of each image, the seed and the purpose.

    Equal images get equal seeds, in any floating-point type that holds them exactly.

    Args:
        seed: the user's.
        purpose: what is drawn, such as "Square", so that two attacks do not draw the same.
    """
    digest = blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    key = int.from_bytes(digest, "little", signed=True)
    pixels = (x.detach().flatten(1).double() + 0.0).view(torch.int64)  # -0.0 is 0.0
    # The low half of a float64 that was a float32 is nearly empty.
    pixels = pixels ^ _shift(pixels, 32)
    position = torch.arange(pixels.shape[1], device=x.device)
    return _mix(key + (pixels * (_mix(position * GOLDEN) | 1)).sum(dim=1))


def start_seeds(x: Tensor, seed: int, purpose: str) -> list[int]:
    """`image_seeds` as `SeededStart` takes them: numbers below 2^32, which torch's CPU generator
    can be seeded with."""
    seeds: list[int] = (image_seeds(x, seed, purpose) & 0xFFFFFFFF).tolist()
    return seeds


def draw(seeds: Tensor, start: int, count: int) -> Tensor:
    """Seeds [N] -> the draws number start to start + count - 1 of each: [N, count] random int64.

    Draw i is output i of the generator splitmix64 with that seed, so that no draw needs the ones
    before it.
    """
    index = torch.arange(start + 1, start + count + 1, device=seeds.device)
    return _mix(seeds[:, None] + index * GOLDEN)


def as_uniform(bits: Tensor) -> Tensor:
    """Random int64 of any shape -> float64 in [0, 1)."""
    return _shift(bits, 11).double() * 2.0**-53


def as_below(bits: Tensor, end: int | Tensor) -> Tensor:
    """Random int64 -> integers in 0..end-1, int64. `end` is at most 2**31, or a tensor of such."""
    return _shift(bits, 33) * end >> 31


def as_sign(bits: Tensor) -> Tensor:
    """Random int64 -> bool, each with probability 1/2."""
    return bits < 0


def draw_normal(seeds: Tensor, start: int, count: int) -> Tensor:
    """Seeds [N] -> [N, count] standard normal float64, from the draws start to start + 2 count - 1.

    Logarithm and cosine may differ between devices in the last bits.
    """
    radius, angle = as_uniform(draw(seeds, start, 2 * count)).chunk(2, dim=1)
    return (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * math.pi * angle)


def _mix(z: Tensor) -> Tensor:
    """The output function of splitmix64."""
    z = (z ^ _shift(z, 30)) * MIX[0]
    z = (z ^ _shift(z, 27)) * MIX[1]
    return z ^ _shift(z, 31)


def _shift(z: Tensor, by: int) -> Tensor:
    """Logical shift to the right."""
    return (z >> by) & ((1 << (64 - by)) - 1)
