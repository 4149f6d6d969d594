"""The networks that the paper's authors released: pickled lists of weights, read safely."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .._utils.errors import InputError
from .._utils.unpickle import read_pickle
from .layers import Conv, SameConv2d
from .networks import TABLES, LayeredClassifier, Table, empty

Layers = list[list[NDArray[Any]]]  # [W [kh, kw, in, out], b [out]] a layer; the last is [W]
Shapes = list[list[tuple[int, ...]]]


def load_released(path: str | Path) -> LayeredClassifier:
    """Read a network as the authors pickled it; the layers' shapes tell which one it is.

    Raises:
        InputError: the pickle is damaged, names anything but NumPy arrays, or holds no layers of
            small, pool or wresnet.
    """
    layers = _layers(read_pickle(path), path)
    model = empty(_config(layers, path))
    _fill(model, layers, path)
    return model


def _layers(content: Any, path: str | Path) -> Layers:
    """The pickled list, if it is a list of tuples of floating-point arrays, else an error."""
    entries = content if isinstance(content, list) else []
    layers = [list(entry) if isinstance(entry, (list, tuple)) else [] for entry in entries]
    arrays = [array for layer in layers for array in layer]
    floats = all(isinstance(a, np.ndarray) and np.issubdtype(a.dtype, np.floating) for a in arrays)
    if len(layers) >= 2 and all(layers) and floats:
        return layers
    length = f" of length {len(content)}" if isinstance(content, (list, dict)) else ""
    raise InputError(
        f"{path} holds no released network: expected a list with a tuple of float arrays for each "
        f"layer, got a {type(content).__name__}{length}."
    )


def _config(layers: Layers, path: str | Path) -> dict[str, Any]:
    """The config of the network that has layers of these shapes."""
    shapes = [[a.shape for a in entry] for entry in layers]
    first, last = shapes[0][0], shapes[-1][0]
    if len(first) == 4 and len(last) == 4 and min(first + last) > 0:
        for name, table in TABLES.items():
            if shapes == _shapes(table, first[2], last[3]):
                return {"name": name, "in_channels": first[2], "num_classes": last[3]}
    raise InputError(
        f"{path} holds {len(layers)} layers, the first of shape {first} and the last of shape "
        f"{last}, which fit none of the released networks ({', '.join(TABLES)})."
    )


def _shapes(table: Table, in_channels: int, num_classes: int) -> Shapes:
    """The shapes of the arrays that a release holds for a table of layers."""
    shapes: Shapes = []
    channels = in_channels
    for row in table:
        if isinstance(row, Conv):
            shapes.append([(row.kernel, row.kernel, channels, row.filters), (row.filters,)])
            channels = row.filters
        else:
            shapes.append([(row.kernel, row.kernel), ()])  # placeholders, all NaN
    return [*shapes, [(1, 1, channels, num_classes)]]


@torch.no_grad()
def _fill(model: LayeredClassifier, layers: Layers, path: str | Path) -> None:
    """Copy the arrays into the model: HWIO -> OIHW."""
    for module, entry in zip(model.layers, layers[:-1], strict=True):
        if isinstance(module, SameConv2d):
            module.weight.copy_(torch.from_numpy(entry[0]).permute(3, 2, 0, 1))
            module.bias.copy_(torch.from_numpy(entry[1]))
    model.weight.copy_(torch.from_numpy(layers[-1][0])[0, 0].t())
