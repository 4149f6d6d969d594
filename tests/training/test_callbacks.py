"""Callbacks, early stopping, TensorBoard, and the lines that a run prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from resumable import run

from fastinterp import InputError
from fastinterp.training import Callback, EarlyStopping, IntTrainer, NormalTrainer, Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


class Seen(Callback):
    def __init__(self, stop_after: int = 99) -> None:
        self.calls: list[object] = []
        self.stop_after = stop_after

    def on_start(self, trainer, history) -> None:
        self.calls.append(("start", len(history)))

    def on_step(self, trainer, result) -> None:
        self.calls.append(("step", trainer.step, result.images))

    def on_epoch(self, trainer, row) -> bool:
        self.calls.append(("epoch", row["epoch"], row["step"]))
        return row["epoch"] >= self.stop_after

    def on_end(self, trainer, history) -> None:
        self.calls.append(("end", len(history)))


def test_calls_come_in_order_and_one_may_stop(make_tiny, make_data) -> None:
    seen = Seen(stop_after=2)
    history = NormalTrainer(make_tiny()).fit(make_data(16), 9, 8, progress=False, callbacks=[seen])
    steps = [("start", 0), ("step", 1, 8), ("step", 2, 8), ("epoch", 1, 2)]
    assert seen.calls == [*steps, ("step", 3, 8), ("step", 4, 8), ("epoch", 2, 4), ("end", 2)]
    assert len(history) == 2


def test_early_stopping_counts_again_after_a_resume(tmp_path: Path, make_tiny, make_data) -> None:
    scores = [0.1, 0.3, 0.2, 0.3, 0.1, 0.9]
    stop = EarlyStopping(3)
    asked = [stop.on_epoch(None, {"val_accuracy": score, "loss": 1.0}) for score in scores]
    assert asked == [False, False, False, False, True, False]
    with pytest.raises(InputError, match="has no size, only loss"):
        EarlyStopping(1, "size").on_epoch(None, {"loss": 1.0})

    def fit(epochs: int, resume: bool) -> int:
        trainer = NormalTrainer(make_tiny(), lr=0.0)
        images, options = make_data(8), {"progress": False, "callbacks": [EarlyStopping(2)]}
        return len(trainer.fit(images, epochs, 8, images, tmp_path / "a", resume, **options))

    # Nothing rises without a learning rate, so a run lasts one epoch and two of patience.
    assert fit(2, False) == 2
    assert fit(9, True) == 3
    assert fit(9, True) == 3


def test_tensorboard(tmp_path: Path, make_data) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from fastinterp import models

    trainer = IntTrainer(models.small(1, 4, seed=0), eps=0.1, steps=1)
    history = trainer.fit(make_data(16), 2, 8, out=tmp_path, progress=False, log="tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(row["step"], pytest.approx(row["loss"])) for row in history]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_line_for_each_epoch(make_tiny, make_data, capsys, monkeypatch, terminal: bool) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    images = make_data(16)
    history = IntTrainer(make_tiny(), eps=0.1, steps=1).fit(images, 3, 8, images)
    said = capsys.readouterr().err
    for row in history:
        line = (
            f"int: epoch {row['epoch']}/3, loss {row['loss']:.3f}, clean "
            f"{row['clean_accuracy']:.3f}, robust {row['robust_accuracy']:.3f}, "
            f"val {row['val_accuracy']:.3f}, {row['seconds']:.1f} s"
        )
        assert said.count(line) == 1
    assert terminal or len(said.strip().splitlines()) == 3
    assert not terminal or re.search(r"\r *\r$", said)  # no bar stays behind


def test_the_outer_loss_in_bfloat16(make_tiny, make_data, monkeypatch) -> None:
    monkeypatch.setattr("fastinterp.training.precision.has_bf16", lambda device: True)
    x, y = make_data(32)
    losses, kinds = [], []
    for outer in ("float32", "bf16"):
        trainer = IntTrainer(make_tiny(), eps=0.1, steps=3, lr=1e-3, outer_precision=outer)
        trainer.model.head.register_forward_hook(lambda m, i, out: kinds.append(out.dtype))
        losses.append(trainer.training_step(x, y).loss)
        assert all(p.grad.dtype == torch.float32 for p in trainer.model.parameters())
    assert torch.allclose(*losses, rtol=0.01) and losses[0] != losses[1]
    # Of the second trainer the passes at x and at x'; the inner loop stays in float32.
    assert kinds.count(torch.bfloat16) == 2


def test_bad_callbacks_are_refused(make_tiny, make_data, tmp_path: Path) -> None:
    trainer = NormalTrainer(make_tiny())
    for options, said in (
        ({"callbacks": [print]}, "callbacks must hold"),
        ({"callbacks": [Seen]}, r"the class; write Seen\(...\)"),
        ({"log": "wandb", "out": tmp_path / "run"}, "log must be"),
        ({"log": "tensorboard"}, "with an out folder"),
    ):
        with pytest.raises(InputError, match=said):
            trainer.fit(make_data(8), 1, **options)
    for make in (lambda: EarlyStopping(0), lambda: EarlyStopping(2, least=-1)):
        with pytest.raises(InputError, match="EarlyStopping"):
            make()
    with pytest.raises(InputError, match="outer_precision"):
        Trainer(make_tiny(), "normal", outer_precision="tf32")


def test_a_run_with_callbacks_is_the_run_without(tmp_path: Path) -> None:
    plain, _ = run(None)
    watched, _ = run(tmp_path, callbacks=[Seen()])
    pairs = zip(plain.model.parameters(), watched.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
