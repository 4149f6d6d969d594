"""Whole runs: stopped, killed and resumed, refused, recorded."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from resumable import EPOCHS, STEPS, run
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from fastinterp import InputError, models
from fastinterp.training import IntTrainer, NormalTrainer, Trainer
from fastinterp.training.folder import BEFORE, HISTORY, LOCK, NETWORK, STATE
from fastinterp.training.state import read_state, restore_state

SCRIPT = Path(__file__).with_name("resumable.py")
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")


def everything(trainer: IntTrainer) -> list[Tensor]:
    """Weights and the optimiser's state."""
    state = trainer.optimizer.state_dict()["state"]
    of_optimizer = [entries[key] for entries in state.values() for key in sorted(entries)]
    return [*trainer.model.state_dict().values(), *of_optimizer]


def press_at(step: int):
    """Press Ctrl-C within the step after this one."""
    return lambda trainer, x: trainer.step == step and signal.raise_signal(signal.SIGINT)


def timeless(history: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def assert_same(first: tuple[IntTrainer, list], second: tuple[IntTrainer, list]) -> None:
    for a, b in zip(everything(first[0]), everything(second[0]), strict=True):
        assert torch.equal(a, b)
    assert timeless(first[1]) == timeless(second[1])


def test_killed_at_any_moment_and_resumed(tmp_path: Path) -> None:
    """SIGKILL, twice in one run, at moments that nobody chose; the last bit is the same."""
    out = tmp_path / "run"
    kills, seen = 0, 0
    moments = random.Random(0)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    while kills < 2:
        process = subprocess.Popen([sys.executable, str(SCRIPT), str(out)], env=environment)
        try:
            while process.poll() is None:
                if (out / STATE).exists() and read_state(out / STATE).record["step"] > seen:
                    time.sleep(moments.uniform(0, 0.03))
                    break
                time.sleep(0.001)
        finally:
            process.kill()
        if process.wait() != -signal.SIGKILL:
            break
        kills += 1
        seen = read_state(out / STATE).record["step"]
    assert kills > 0 and 0 < seen < EPOCHS * STEPS, "the run must have been killed before its end"
    assert not (out / NETWORK).exists()
    resumed = run(out)
    assert_same(run(None), resumed)
    assert json.loads((out / HISTORY).read_text()) == resumed[1]
    for saved, weight in zip(
        models.load(out / NETWORK).parameters(), resumed[0].model.parameters(), strict=True
    ):
        assert torch.equal(saved, weight)


@pytest.mark.parametrize("step", [1, STEPS - 1, STEPS, STEPS + 1, EPOCHS * STEPS])
def test_interrupted_between_two_steps(tmp_path: Path, monkeypatch, watch_steps, step: int) -> None:
    """Ctrl-C within a step: the step ends, its state is saved, and nothing is lost."""
    handler = signal.getsignal(signal.SIGINT)
    watch_steps(before=press_at(step - 1))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, checkpoint_seconds=1e9)
    assert signal.getsignal(signal.SIGINT) is handler
    assert read_state(tmp_path / STATE).record["step"] == step
    monkeypatch.undo()
    assert_same(run(None), run(tmp_path))


def test_a_second_interrupt_stops_at_once(tmp_path: Path, monkeypatch) -> None:
    def press_twice(self: IntTrainer, x: Tensor, y: Tensor) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("not reached")

    monkeypatch.setattr(IntTrainer, "training_step", press_twice)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert not (tmp_path / STATE).exists()


def test_a_finished_run(tmp_path: Path, monkeypatch) -> None:
    first = run(tmp_path)
    again = run(tmp_path)
    assert again[0].step == EPOCHS * STEPS
    assert_same(first, again)
    longer = run(tmp_path, epochs=EPOCHS + 2)
    assert_same(run(None, epochs=EPOCHS + 2), longer)
    with pytest.raises(InputError, match="6 finished epochs, more than the 2"):
        run(tmp_path, epochs=2)


def test_what_is_written(tmp_path: Path) -> None:
    _, history = run(tmp_path / "new" / "folder", resume=False)
    out = tmp_path / "new" / "folder"
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [HISTORY, LOCK, NETWORK, STATE, BEFORE]
    )
    info = models.info(out / NETWORK)
    assert info["settings"]["method"] == "int"
    assert info["settings"]["gamma"] == 0.01
    assert info["last_epoch"] == timeless(history)[-1]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert [row["step"] for row in history] == [6, 12, 18, 24]
    assert [row["images"] for row in history] == [48] * 4
    assert history[0]["eps"] == pytest.approx(0.1 * 3 / 9)
    assert history[-1]["lr"] == pytest.approx(1e-4)
    assert set(history[0]) == {
        *("epoch", "step", "eps", "lr", "loss", "clean_accuracy", "robust_accuracy"),
        *("images", "seconds"),
    }


def test_an_epochs_figures_are_means_over_its_images(make_tiny, make_data, watch_steps) -> None:
    results = []
    watch_steps(after=lambda trainer, result: results.append(result))
    trainer = IntTrainer(make_tiny(), eps=0.1, steps=2)
    (row,) = trainer.fit(make_data(20), epochs=1, batch_size=8, progress=False)
    assert row["loss"] == pytest.approx(sum(float(r.loss) for r in results) / 2)
    assert row["clean_accuracy"] == sum(int(r.clean_correct) for r in results) / 16
    assert row["robust_accuracy"] == sum(int(r.robust_correct) for r in results) / 16
    assert row["images"] == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": 0.2}, "eps = 0.1, not 0.2"),
        ({"gamma": 0.5}, "gamma = 0.01, not 0.5"),
        ({"batch_size": 16}, "batch_size = 8, not 16"),
        ({"seed": 1}, "seed = 0, not 1"),
        ({"eps_schedule": None}, r"eps_schedule = \[3, 12\], not None"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    run(tmp_path, epochs=1)
    before = (tmp_path / STATE).read_bytes()
    with pytest.raises(InputError, match=message):
        run(tmp_path, **changes)
    assert (tmp_path / STATE).read_bytes() == before


def test_nothing_is_written_over(tmp_path: Path) -> None:
    run(tmp_path, resume=False, epochs=1)
    with pytest.raises(InputError, match="holds a run already; pass resume"):
        run(tmp_path, resume=False)
    for name in (STATE, BEFORE):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match="holds a run already; pass resume"):
        run(tmp_path, resume=False)
    with pytest.raises(InputError, match="no state to resume from"):
        run(tmp_path, resume=True)


def test_states_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes(b"not a state")
    with pytest.raises(InputError, match="is not the state of a fastinterp run"):
        run(tmp_path)
    (tmp_path / STATE).unlink()
    trainer, _ = run(tmp_path, epochs=1)
    other = models.pool(1, 4)
    with pytest.raises(InputError, match="another network or optimizer"):
        restore_state(read_state(tmp_path / STATE), other, torch.optim.Adam(other.parameters()))
    with pytest.raises(InputError, match="another network or optimizer"):
        restore_state(
            read_state(tmp_path / STATE),
            trainer.model,
            torch.optim.Adam(list(trainer.model.parameters())[:2]),
        )


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, monkeypatch, watch_steps) -> None:
    def spoil(trainer: Trainer, result: object) -> None:
        if trainer.step == 10:
            with torch.no_grad():
                next(trainer.model.parameters()).mul_(float("nan"))

    watch_steps(after=spoil)
    with pytest.raises(InputError, match=r"no longer a finite number \(noticed at step 10\)"):
        run(tmp_path)
    assert read_state(tmp_path / STATE).record["step"] == 9
    monkeypatch.undo()
    assert_same(run(None), run(tmp_path))


def test_a_network_without_a_source_keeps_its_weights(tmp_path: Path, make_tiny, make_data) -> None:
    model = make_tiny()
    trainer = NormalTrainer(model, lr=0.01)
    trainer.fit(make_data(16), epochs=1, batch_size=8, out=tmp_path, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, HISTORY, NETWORK, STATE]
    with pytest.raises(InputError, match=r"only the weights.*Tiny.*into=network"):
        models.load(tmp_path)
    twin = models.load(tmp_path, into=make_tiny())
    assert_same_weights(model, twin)
    assert models.info(tmp_path)["epochs"] == 1
    twin = make_tiny()
    restore_state(read_state(tmp_path / STATE), twin, torch.optim.Adam(twin.parameters()))
    assert_same_weights(model, twin)


def assert_same_weights(model: Any, twin: Any) -> None:
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_data_loader(tmp_path: Path, make_tiny, make_data, watch_steps) -> None:
    loader = DataLoader(TensorDataset(*make_data(22)), batch_size=8, shuffle=True)
    trainer = IntTrainer(make_tiny(), lr=0.01, eps=0.1, steps=2)
    watch_steps(before=press_at(3))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(loader, epochs=3, out=tmp_path, progress=False)
    trainer = IntTrainer(make_tiny(), lr=0.01, eps=0.1, steps=2)
    history = trainer.fit(
        loader, epochs=3, out=tmp_path, resume=True, val_data=loader, progress=False
    )
    assert [row["step"] for row in history] == [3, 6, 9]
    assert history[-1]["images"] == 22
    assert 0 <= history[-1]["val_accuracy"] <= 1


def test_modes_after_a_run(make_tiny, make_data) -> None:
    model = make_tiny(norm=True).eval()
    model.head.train()
    NormalTrainer(model).fit(make_data(16), epochs=1, batch_size=8, progress=False)
    assert [m.training for m in (model, model.norm, model.head)] == [False, False, True]
    assert int(model.norm.num_batches_tracked) == 2


def test_the_bar(make_tiny, make_data, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("fastinterp.training.progress.Every.due", lambda self: True)
    trainer = IntTrainer(make_tiny(), eps=0.1, steps=1)
    trainer.fit(make_data(16), epochs=1, batch_size=8)
    text = capsys.readouterr().err
    for word in ("int:", "loss=", "clean=", "robust=", "images/s"):
        assert word in text
    trainer.fit(make_data(16), epochs=1, batch_size=8, progress=False)
    assert capsys.readouterr().err == ""


def test_bad_arguments_of_fit_are_refused_before_the_first_step(
    make_tiny, make_data, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    for options, message in (
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"out": ""}, "out must name a folder"),
        ({"out": "/proc/x"}, "cannot make the folder"),
        ({"out": file}, "out must be a folder, and .*file is a file"),
        ({"out": file / "run"}, "out must be a folder, and .*file is a file"),
    ):
        trainer = NormalTrainer(make_tiny())
        with pytest.raises(InputError, match=message):
            trainer.fit(make_data(8), **{"epochs": 1, "progress": False} | options)
        assert trainer.step == 0


def test_a_state_of_version_0_1_goes_on(tmp_path: Path, make_tiny, make_data) -> None:
    """state-0.1.safetensors: 2 epochs of this trainer by version 0.1.0 (commit 343ce34)."""
    settings = {"eps": 0.1, "steps": 2, "eps_schedule": (3, 12), "lr": 1e-3, "lr_milestones": (9,)}
    shutil.copy(Path(__file__).with_name("state-0.1.safetensors"), tmp_path / STATE)
    saved, before = load_file(tmp_path / STATE), read_state(tmp_path / STATE).record
    fit = {"batch_size": 8, "out": tmp_path, "resume": True, "progress": False}
    with pytest.raises(InputError, match=r"eps = 0\.1, not 0\.2"):
        IntTrainer(make_tiny(), **(settings | {"eps": 0.2})).fit(make_data(40), 4, **fit)
    trainer = IntTrainer(make_tiny(), **settings)
    assert trainer.fit(make_data(40), 2, **fit) == before["history"]
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, saved[f"model/{name}"])
    for index, entries in trainer.optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            assert torch.equal(value, saved[f"optimizer/{index}/{key}"])
    history = IntTrainer(make_tiny(), **settings).fit(make_data(40), 4, **fit)
    assert [row["step"] for row in history] == [5, 10, 15, 20]
    assert history[:2] == before["history"]
    assert history[-1]["loss"] < history[0]["loss"]


@pytest.mark.parametrize(("schedule", "warned"), [((1, 9), True), ((1, 3), False), (None, False)])
def test_a_run_that_ends_before_its_radius_has_risen_warns(
    make_tiny, make_data, schedule, warned: bool
) -> None:
    trainer = IntTrainer(make_tiny(), eps=0.1, steps=1, step_size=0.1, eps_schedule=schedule)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trainer.fit(make_data(16), epochs=2, batch_size=8, progress=False)
    said = [str(each.message) for each in seen if "eps_schedule" in str(each.message)]
    assert bool(said) is warned
    if said:
        assert "ends at step 4" in said[0] and "reaches 0.025 of eps = 0.1" in said[0]
