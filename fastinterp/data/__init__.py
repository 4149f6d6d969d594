"""Labelled images, held in memory as bytes."""

from .dataset import ImageData
from .load import NAMES, SPLITS, load

__all__ = ["NAMES", "SPLITS", "ImageData", "load"]
