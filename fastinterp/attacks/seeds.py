"""Random numbers of each image's own: the same in any batch, in any order, on any device.

An image's seed comes from its pixels, and a number is a hash of that seed and a counter
(SplitMix64: Steele, Lea and Flood, 2014). All of it is integer arithmetic modulo 2^64.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _signed(word: int) -> int:
    """A 64-bit word as torch's int64 has it."""
    return word - (1 << 64) if word >= 1 << 63 else word


_STEP = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def image_seeds(x: Tensor, seed: int = 0) -> Tensor:
    """Seeds int64 [N] of images [N, ...], from the pixels in float32 and a number of the user's."""
    bits = x.detach().float().contiguous().flatten(1).view(torch.int32).to(torch.int64)
    places = torch.arange(1, bits.shape[1] + 1, device=x.device)
    words = _mix(bits + _mix(places * _STEP))
    return _mix(words.sum(dim=1) + _mix(torch.full_like(words[:, 0], seed)))


def draw_bits(seeds: Tensor, counter: int, count: int) -> Tensor:
    """Random words int64 [N, count], for each seed [N] and value of the counter others."""
    keys = _mix(seeds + _signed((counter * 0x632BE59BD9B4E019) % (1 << 64)))
    return _mix(keys[:, None] + torch.arange(1, count + 1, device=seeds.device) * _STEP)


def draw_uniform(seeds: Tensor, counter: int, count: int) -> Tensor:
    """Numbers float32 [N, count], uniform in [0, 1)."""
    return (_shifted(draw_bits(seeds, counter, count), 40)).to(torch.float32) * 2.0**-24


def draw_integers(seeds: Tensor, counter: int, count: int, below: int) -> Tensor:
    """Integers int64 [N, count], uniform in 0..below-1 (below at most 2^31)."""
    return _shifted(_shifted(draw_bits(seeds, counter, count), 33) * below, 31)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _FIRST
    z = (z ^ _shifted(z, 27)) * _SECOND
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """A logical shift to the right: int64's own one copies the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
