"""In which precision a pass runs, and what comes out of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fastinterp.attacks import CrossEntropy, Discrepancy, IGNorm, LinfBall, Outputs, ascend
from fastinterp.attacks.modes import constant_parameters
from fastinterp.models.compiled import CompiledClassifier


class Watched(nn.Module):
    """Says in which type it was run."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Tensor:
        result = self.inner(x)
        self.seen.append(result.dtype)
        return result


def test_bf16_passes_give_float32(make_tiny, batch) -> None:
    model, x = make_tiny(torch.float32), batch[0].float()
    model.head = Watched(model.head)
    wide, narrow = Outputs(model, x), Outputs(model, x, "bf16")
    for what in ("features", "logits"):
        a, b = getattr(wide, what), getattr(narrow, what)
        assert a.dtype == b.dtype == torch.float32
        assert not torch.equal(a, b)
        assert torch.allclose(a, b, rtol=0, atol=0.02)
    assert model.head.seen == [torch.float32, torch.bfloat16]
    # From features on everything is float32.
    assert torch.equal(narrow.logits, model.logits(narrow.features))
    for other in (narrow.detach(), narrow.rows(torch.tensor([1]))):
        assert other.precision == "bf16"


def test_plain_classifiers_too(batch) -> None:
    x = batch[0].float()
    plain = Watched(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)))
    logits = Outputs(plain, x, "bf16").logits
    assert plain.seen == [torch.bfloat16] and logits.dtype == torch.float32


@pytest.mark.parametrize("objective", [CrossEntropy(), Discrepancy(), IGNorm(2)])
def test_an_ascent_in_bf16(make_tiny, batch, objective) -> None:
    model, (x, y) = make_tiny(torch.float32), batch
    x = x.float()
    model.head = Watched(model.head)

    def climb(precision: str) -> Tensor:
        return ascend(
            model,
            LinfBall(0.2, 0.05),
            objective,
            x,
            y,
            4,
            random_start=True,
            generator=torch.Generator().manual_seed(0),
            precision=precision,
        )

    wide = climb("float32")
    assert set(model.head.seen) == {torch.float32}
    model.head.seen.clear()
    narrow = climb("bf16")
    at_x = isinstance(objective, Discrepancy)
    assert model.head.seen == [torch.float32] * at_x + [torch.bfloat16] * 4
    assert narrow.dtype == torch.float32
    assert (narrow - x).abs().max() <= 0.2 + 1e-6
    # Steps go by the sign: where the signs agree, the pixels do, bit for bit.
    assert (narrow == wide).float().mean() > 0.9
    assert not torch.is_autocast_enabled("cpu")


def test_float64_stays_float64(make_tiny, batch) -> None:
    model, (x, _) = make_tiny(), batch
    assert torch.equal(Outputs(model, x, "bf16").features, Outputs(model, x).features)


def test_parameters_of_a_compiled_network_are_constants_for_a_while(make_tiny) -> None:
    model = CompiledClassifier(make_tiny())
    model.model.conv.bias.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    with pytest.raises(RuntimeError, match="stop"), constant_parameters(model):
        assert not any(p.requires_grad for p in model.parameters())
        raise RuntimeError("stop")
    assert [p.requires_grad for p in model.parameters()] == before == [True, False, *[True] * 4]


def test_a_detached_pass_is_a_constant_also_where_it_is_made_later(make_tiny, batch) -> None:
    model, (x, _) = make_tiny(), batch
    made, later = Outputs(model, x.requires_grad_()), Outputs(model, x).detach()
    _ = made.logits
    for outputs in (made.detach(), later):
        for tensor in (outputs.features, outputs.logits, outputs.weight, outputs.bias):
            assert not tensor.requires_grad
    assert torch.equal(later.logits, made.logits)
