"""Setting modes, precision and autograd for a while, and leaving a caller's as they were found."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from .._utils.errors import InputError
from ..models.compiled import CompiledClassifier
from ..models.folded import FoldedClassifier, folded_features
from ..ops._constants import constant_weights
from .outputs import Precision

# Threads may share a network. Which of them have put a module into eval mode, each with whether it
# must put it back into train mode, and which thread needs a module for itself.
_lock = threading.RLock()  # a model.train of one's own may come back here
_in_eval: WeakKeyDictionary[nn.Module, dict[int, list[bool]]] = WeakKeyDictionary()
_owners: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


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
    """Eval mode for a while, with convolutions in `precision`; verdicts are taken in float32.

    Where threads share the model, the last one to leave restores the modes that the first found.

    Raises:
        InputError: another thread needs the model in train mode meanwhile.
    """
    modules, me = list(model.modules()), threading.get_ident()
    with _lock:
        if any(_owners.get(module, me) != me for module in modules):
            raise _shared()
        training = [module.training for module in modules]
        for module, mode in zip(modules, training, strict=True):
            _in_eval.setdefault(module, {}).setdefault(me, []).append(mode)
        if any(training):
            model.train(False)
    try:
        with convolutions_in(precision):
            yield
    finally:
        with _lock:
            for module in modules:
                _leave(module, me)


def _leave(module: nn.Module, me: int) -> None:
    threads = _in_eval[module]
    was_training = threads[me].pop()
    if not threads[me]:
        del threads[me]
    others = [modes for thread, modes in threads.items() if thread != me]
    if was_training and others:
        others[0][0] = True
    elif was_training:
        module.training = True
    if not threads:
        del _in_eval[module]


@contextmanager
def own_modes(model: nn.Module) -> Iterator[None]:
    """Let no other thread change what a network in train mode computes for a while.

    Raises:
        InputError: another thread does already.
    """
    me, owned = threading.get_ident(), []
    compiled = isinstance(model, CompiledClassifier)
    with _lock:
        for module in model.modules():
            others = [modes for thread, modes in _in_eval.get(module, {}).items() if thread != me]
            depends = compiled or _may_depend_on_mode(module)
            if _owners.get(module, me) != me or (depends and any(map(any, others))):
                raise _shared()
            if depends and module.training and module not in _owners:
                owned.append(module)
        _owners.update(dict.fromkeys(owned, me))
    try:
        yield
    finally:
        with _lock:
            for module in owned:
                del _owners[module]


MODAL = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd, nn.RReLU)


def _may_depend_on_mode(module: nn.Module) -> bool:
    """Layers of others may read `training`; of torch's, those in MODAL and those with dropout."""
    kind = type(module)
    known = kind.__module__.startswith(("torch.nn.", "fastinterp."))
    return not known or isinstance(module, MODAL) or getattr(module, "dropout", 0) != 0


def _shared() -> InputError:
    return InputError(
        "Another thread uses this network at the same time, and one of the two needs its train "
        "mode or compiled form; give each thread a copy of its own (copy.deepcopy)."
    )


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
    network leave their part of the backward pass out. Other networks leave it out anyway, and keep
    what threads share as it is.
    """
    compiled = any(map(_is_compiled, model.modules()))
    asking = [p for p in model.parameters() if p.requires_grad] if compiled else []
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        with constant_weights():
            yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def _is_compiled(module: nn.Module) -> bool:
    return (
        isinstance(module, CompiledClassifier)
        or (isinstance(module, FoldedClassifier) and module.run is not folded_features)
        or "_orig_mod" in module._modules  # of torch.compile(module)
        or module._compiled_call_impl is not None  # after module.compile()
    )


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
