"""Labelled images, held in memory as bytes or read from files batch by batch."""

from .dataset import ImageData
from .load import FOLDERS, NAMES, SPLITS, load, stream
from .mixed import MixedData, mix
from .stream import ImageStream

__all__ = [
    "FOLDERS",
    "NAMES",
    "SPLITS",
    "ImageData",
    "ImageStream",
    "MixedData",
    "load",
    "mix",
    "stream",
]
