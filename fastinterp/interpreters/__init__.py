"""Interpreters: a network and images -> maps of the evidence for each class."""

from .base import Classes, FeatureInterpreter, Interpreter, logits_and_maps
from .cam import CAM

__all__ = ["CAM", "Classes", "FeatureInterpreter", "Interpreter", "logits_and_maps"]
