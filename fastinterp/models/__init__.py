"""Networks that end in a global average and a linear layer: their CAMs sum to the logits."""

from .checkpoint import info, load, save
from .gap import GapClassifier
from .networks import pool, small, wresnet
from .sources import PlainClassifier, build, from_source
from .wrap import wrap

__all__ = [
    "GapClassifier",
    "PlainClassifier",
    "build",
    "from_source",
    "info",
    "load",
    "pool",
    "save",
    "small",
    "wrap",
    "wresnet",
]
