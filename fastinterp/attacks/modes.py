"""Setting modes, precision and autograd for a while, and leaving a caller's as they were found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from .outputs import Precision


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put the model into train or eval mode; afterwards every submodule has the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    if all(mode == training for _, mode in modes):
        yield
        return
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def eval_mode(model: nn.Module, precision: Precision = "float32") -> Iterator[None]:
    """Eval mode for a while, with convolutions in `precision`; verdicts are taken in float32."""
    with in_mode(model, training=False), convolutions_in(precision):
        yield


@contextmanager
def convolutions_in(precision: Precision) -> Iterator[None]:
    """Exact float32 convolutions and matrix products for a while, or TF32 on a GPU for "tf32".

    By default torch runs float32 convolutions on a GPU in TF32, with 10 bits of mantissa. The
    switches hold for the whole process. They have older names (`allow_tf32`) and newer ones
    (`fp32_precision`); both are set, as torch raises an error where they disagree.
    """
    tf32 = precision == "tf32"
    backends: Any = torch.backends
    cudnn, cuda, mkldnn = backends.cudnn, backends.cuda, backends.mkldnn
    switches = (cudnn.conv, cudnn.rnn, cuda.matmul, mkldnn.conv, mkldnn.matmul)
    conv, rnn, *others = [switch.fp32_precision for switch in switches]
    # Those that only follow torch's general setting must follow it again afterwards.
    general = backends.fp32_precision
    found = [conv, rnn, *("none" if value == general else value for value in others)]
    matmul = "high" if others[0] == "tf32" else "highest"
    with suppress(RuntimeError):  # they disagree already
        matmul = torch.get_float32_matmul_precision()
    try:
        cudnn.allow_tf32 = cuda.matmul.allow_tf32 = tf32
        for switch in switches:
            switch.fp32_precision = "tf32" if tf32 and switch in switches[:3] else "ieee"
        yield
    finally:
        cudnn.allow_tf32 = conv == "tf32"
        torch.set_float32_matmul_precision(matmul)
        for switch, value in zip(switches, found, strict=True):
            switch.fp32_precision = value


@contextmanager
def constant_parameters(model: nn.Module) -> Iterator[None]:
    """Let no parameter ask for a gradient for a while.

    A loop that climbs over images asks for none of theirs; saying so beforehand lets a compiled
    network leave their part of the backward pass out.
    """
    asking = [p for p in model.parameters() if p.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


@contextmanager
def own_autograd(device_type: str) -> Iterator[None]:
    """Record gradients in full precision, whatever the caller runs under.

    Callers may be inside no_grad, inference_mode (Lightning's test loop) or autocast.
    """
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device_type, enabled=False),
    ):
        yield
