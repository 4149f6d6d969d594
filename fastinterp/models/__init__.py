"""Networks that end in a global average and a linear layer: their CAMs sum to the logits."""

from .checkpoint import info, load, save
from .gap import GapClassifier
from .networks import build, pool, small, wresnet
from .wrap import wrap

__all__ = ["GapClassifier", "build", "info", "load", "pool", "save", "small", "wrap", "wresnet"]
