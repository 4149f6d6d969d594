"""R2ET: what its maps may be, and that the top k hold better after it."""

from __future__ import annotations

import pytest
import torch
from test_real_data import Net
from torch import Tensor

from fastinterp import InputError, data
from fastinterp.attacks import Outputs
from fastinterp.evaluation.topk import topk_intersection
from fastinterp.training import Trainer
from fastinterp.training.terms import RankingPenalty

K = 6  # of 64 pixels


def saliency(model: Net, x: Tensor, y: Tensor) -> Tensor:
    """The size of the loss's gradient at each pixel, [N, 64]."""
    x = x if x.requires_grad else x.detach().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(x), y, reduction="sum")
    return torch.autograd.grad(loss, x, create_graph=True)[0].abs().flatten(1)


def agreement(model: Net, x: Tensor, y: Tensor, eps: float) -> float:
    """How many of the top k pixels an attack leaves: 20 steps against their share of the sizes."""
    clean = saliency(model, x, y).detach()
    top = clean.topk(K).indices
    x_adv = x.clone()
    for _ in range(20):
        x_adv.requires_grad_()
        sizes = saliency(model, x_adv, y)
        share = sizes.gather(1, top).sum(1) / sizes.sum(1)
        (grad,) = torch.autograd.grad(share.sum(), x_adv)
        moved = x_adv.detach() - 0.01 * grad.sign()
        x_adv = torch.minimum(torch.maximum(moved, x - eps), x + eps).clamp(0, 1)
    return float(topk_intersection(clean, saliency(model, x_adv, y), K).mean())


def test_the_top_k_hold_better(one_thread) -> None:
    digits = data.load("digits", split="train", size=8).subset(range(600))
    held_out = data.load("digits", split="test", size=8)
    x, y = held_out.float(range(100)), held_out.labels[:100]
    held, right = {}, {}
    for name in ("normal", "r2et"):
        trainer = Trainer(Net(), name, lr=0.005)
        trainer.fit(digits, epochs=8, batch_size=30, progress=False)
        held[name] = agreement(trainer.model.eval(), x, y, 0.05)
        right[name] = float((trainer.model(x).argmax(1) == y).float().mean())
    assert held["r2et"] > held["normal"] + 0.05, held
    assert right["r2et"] > right["normal"] - 0.06, right


def test_more_positions_than_the_map_has_are_refused(make_tiny, make_data) -> None:
    (x, y), model = make_data(4), make_tiny()
    with pytest.raises(InputError, match=r"the 33 largest positions .* this map has 64"):
        RankingPenalty(k=33).prepare(Outputs(model, x), y)(Outputs(model, x))
    with pytest.raises(InputError, match="RankingPenalty: k"):
        RankingPenalty(k=0)


def test_bf16_passes_are_too_coarse_for_it(make_tiny, make_data) -> None:
    (x, y), model = make_data(4), make_tiny()
    one, other = (Outputs(model, x, precision) for precision in ("float32", "bf16"))
    values = [RankingPenalty().prepare(at, y)(at) for at in (one, other)]
    assert torch.equal(*values)
