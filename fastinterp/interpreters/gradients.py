"""Gradients of class scores, and their averages over many points, within bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .base import pick

Score: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Points [B, ...] and, for each, the row of the batch that it belongs to, int64 [B] -> [B, C']."""

Points: TypeAlias = Callable[..., Tensor]
"""Numbers of points, int64 [S], and the inputs of n images, each [n, ...] -> points [S, n, ...]."""


def twice_differentiable() -> AbstractContextManager[None]:
    """Networks can be differentiated twice inside, which torch's fused attention cannot be."""
    return sdpa_kernel(SDPBackend.MATH)


@contextmanager
def autograd_on(*tensors: Tensor) -> Iterator[bool]:
    """Let gradients be taken inside, also for callers under no_grad or inference_mode.

    Yields whether results need a graph, by torch's own rule: the caller had grad mode on, and one
    of the tensors that results depend on requires a gradient.
    """
    grad_mode = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    differentiable = grad_mode and any(tensor.requires_grad for tensor in tensors)
    passes = twice_differentiable() if differentiable else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), passes:
        yield differentiable


def variable(tensor: Tensor, differentiable: bool) -> Tensor:
    """A tensor to take gradients by: the given one in its graph, or else a new leaf."""
    if differentiable and tensor.requires_grad:
        return tensor
    return _constant(tensor).detach().requires_grad_()


def _constant(tensor: Tensor) -> Tensor:
    """The same values outside any graph and outside inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def score_gradients(scores: Tensor, inputs: Tensor, differentiable: bool) -> Iterator[Tensor]:
    """For each column c of scores [N, C'], its gradient by inputs [N, ...], image by image.

    The gradient of the column's sum contains each image's own, if no image changes the score of
    another (batch normalisation in train mode does).
    """
    last = scores.shape[1] - 1
    for column, score in enumerate(scores.unbind(dim=1)):
        (grad,) = torch.autograd.grad(
            score.sum(),
            inputs,
            create_graph=differentiable,
            retain_graph=differentiable or column < last,
            materialize_grads=True,
        )
        yield grad


def mean_gradient(
    score: Score,
    points: Points,
    inputs: Sequence[Tensor],
    count: int,
    *,
    chunk_size: int,
    module: nn.Module | None = None,
) -> Tensor:
    """The gradient of `score`, averaged over `count` points for each image.

    At most `chunk_size` points pass through the network at once. Where the result needs a graph
    and one pass is not enough, a chunk keeps no graph: the backward pass computes it again, so
    the chunk bounds the memory. torch refuses a second derivative of such a result; with a
    chunk_size of at least N * count it works.

    Args:
        score: what is differentiated, see `Score`.
        points: makes the points, see `Points`.
        inputs: tensors [N, ...] that `points` depends on, with one N.
        count: how many points each image has.
        chunk_size: most points in one pass through the network.
        module: the network, if its parameters are to get gradients through the result.

    Returns:
        [N, C', ...], with a graph to inputs and parameters if torch would make one.

    Raises:
        RuntimeError: in the backward pass, if the network has other parameters by then.
    """
    parameters = [] if module is None else list(module.parameters())
    with autograd_on(*inputs, *parameters) as differentiable:
        if not differentiable:
            inputs = [_constant(tensor) for tensor in inputs]
        device, size = inputs[0].device, len(inputs[0])
        rebuild = differentiable and size * count > chunk_size
        numbers = torch.arange(count, device=device)
        means = []
        for rows in torch.split(torch.arange(size, device=device), chunk_size):
            some = [tensor[rows] for tensor in inputs]
            total: Tensor | None = None
            for chunk in torch.split(numbers, max(1, chunk_size // max(1, len(rows)))):
                piece = partial(_sum_of_gradients, score, points, rows, chunk)
                if rebuild:
                    part = _Rebuilt.apply(piece, module, len(some), *some, *parameters)
                else:
                    part = piece(some, differentiable)
                total = part if total is None else total + part
            assert total is not None
            means.append(total / count)
        return torch.cat(means)


def class_scores(
    logits: Callable[[Tensor], Tensor], index: Tensor | None, model: nn.Module | None = None
) -> Score:
    """The score of the wanted classes: `index` as from `class_index`, for each row of a batch.

    `model` is the network that `pick` is to check.
    """

    def score(points: Tensor, rows: Tensor) -> Tensor:
        chosen = index[rows] if index is not None and index.dim() == 2 else index
        return pick(logits(points), chosen, model)

    return score


def _sum_of_gradients(
    score: Score,
    points: Points,
    rows: Tensor,
    numbers: Tensor,
    inputs: Sequence[Tensor],
    differentiable: bool,
) -> Tensor:
    """The sum over some of the points, for some of the images: [n, C', ...]."""
    at = points(numbers, *inputs)  # [S, n, ...]
    flat = variable(at.flatten(0, 1), differentiable)
    scores = score(flat, rows.repeat(len(numbers)))  # [S n, C']
    grads = score_gradients(scores, flat, differentiable)
    return torch.stack([grad.view_as(at).sum(dim=0) for grad in grads], dim=1)


class _Rebuilt(torch.autograd.Function):
    """`_sum_of_gradients` whose graph is built again in the backward pass instead of saved."""

    @staticmethod
    def forward(
        ctx: Any,
        piece: Callable[..., Tensor],
        module: nn.Module | None,
        count: int,
        *tensors: Tensor,
    ) -> Tensor:
        ctx.piece, ctx.module, ctx.count = piece, module, count
        ctx.parameters = tensors[count:]
        ctx.save_for_backward(*tensors)  # torch then notices if one is overwritten
        with torch.enable_grad():
            return piece([tensor.detach() for tensor in tensors[:count]], False)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, parameters = ctx.saved_tensors[: ctx.count], ctx.parameters
        now = list(ctx.module.parameters()) if ctx.module is not None else []
        if any(was is not param for was, param in zip(parameters, now, strict=True)):
            raise RuntimeError(
                "the network's parameters were exchanged between the maps and their backward pass, "
                "which needs them again; raise chunk_size to N * the number of points an image."
            )
        needed = ctx.needs_input_grad[3:]
        with torch.enable_grad(), twice_differentiable():
            inputs = [
                tensor.detach().requires_grad_(need)
                for tensor, need in zip(inputs, needed, strict=False)
            ]
            value = ctx.piece(inputs, True)
            if not value.requires_grad:  # a linear score: its gradient is a constant
                return (None,) * (3 + len(needed))
            wanted = [
                tensor for tensor, need in zip([*inputs, *parameters], needed, strict=True) if need
            ]
            found = iter(torch.autograd.grad(value, wanted, grad, allow_unused=True))
        return None, None, None, *(next(found) if need else None for need in needed)
