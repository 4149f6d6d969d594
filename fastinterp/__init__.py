"""Image classifiers whose explanations hold under attack."""

from . import ops
from ._version import __version__
from .errors import InputError
from .ops import backend, build_info

__all__ = ["InputError", "__version__", "backend", "build_info", "ops"]
