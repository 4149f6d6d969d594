"""torch.compile of the features, beside the network and not in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fastinterp import IntTrainer, models
from fastinterp.models.compiled import CompiledClassifier
from fastinterp.training import FAST

INNER = {"eps": 0.1, "steps": 3, "step_size": 0.04}


def compiled_with(backend: str, monkeypatch) -> None:
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f: original(f, backend=backend))


def test_the_network_stays_as_it_is(make_tiny, monkeypatch) -> None:
    compiled_with("eager", monkeypatch)
    model = make_tiny()
    names = list(model.state_dict())
    wrapped = CompiledClassifier(model)
    assert list(model.state_dict()) == names and "features" not in vars(model)
    assert wrapped.weight is model.weight and wrapped.bias is model.bias
    wrapped.eval()
    assert not model.training
    x = torch.rand(3, 1, 8, 8)
    assert torch.allclose(wrapped(x), model(x))


def test_a_run_with_checkpoints(tmp_path: Path, make_data, monkeypatch) -> None:
    compiled_with("aot_eager", monkeypatch)
    plain = IntTrainer(models.small(1, 4, seed=0), lr=1e-3, **INNER)
    trainer = IntTrainer(models.small(1, 4, seed=0), lr=1e-3, compile=True, **INNER)
    fit = {"epochs": 2, "batch_size": 8, "progress": False}
    expected = plain.fit(make_data(16), **fit)
    found = trainer.fit(make_data(16), out=tmp_path, **fit)
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], 1e-4)
    saved = models.load(tmp_path / "model.safetensors")
    x = make_data(4)[0]
    assert torch.equal(saved(x), trainer.model.eval()(x))


def test_fast_settings_train(make_data, monkeypatch) -> None:
    compiled_with("aot_eager", monkeypatch)
    plain = IntTrainer(models.small(1, 4, seed=0), lr=1e-3, **INNER)
    fast = IntTrainer(models.small(1, 4, seed=0), lr=1e-3, **INNER, **FAST)
    x, y = make_data(16)
    expected, found = (trainer.training_step(x, y).loss for trainer in (plain, fast))
    assert float(found) == pytest.approx(float(expected), rel=0.02)


def test_with_the_compiler_of_this_machine(
    make_tiny, make_data, monkeypatch, tmp_path: Path
) -> None:
    """One step by inductor, where it finds a compiler."""
    # Its cache returns code for other vector units after ATEN_CPU_CAPABILITY has changed.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    plain = IntTrainer(make_tiny(), lr=1e-3, **INNER)
    trainer = IntTrainer(make_tiny(), lr=1e-3, compile=True, **INNER)
    x, y = make_data(16)
    try:
        found = trainer.training_step(x, y)
    except torch._dynamo.exc.BackendCompilerFailed as error:  # pragma: no cover
        pytest.skip(f"inductor does not work here: {str(error).splitlines()[0]}")
    expected = plain.training_step(x, y)
    assert torch.allclose(found.loss, expected.loss, rtol=1e-3)
    vectors = [nn.utils.parameters_to_vector(t.model.parameters()) for t in (plain, trainer)]
    assert torch.allclose(*vectors, rtol=0, atol=2.5e-3)  # Adam moves each by up to lr
