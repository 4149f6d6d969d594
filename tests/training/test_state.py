"""States damaged, forged and old; a full disk; two runs in one folder; files left behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from random import Random

import pytest
import torch
from resumable import EPOCHS, STEPS, run
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fastinterp import InputError
from fastinterp._utils.errors import WriteError
from fastinterp.cli.entry import main
from fastinterp.training import NormalTrainer, Trainer
from fastinterp.training.folder import BEFORE, DAMAGED, LOCK, STATE, run_folder
from fastinterp.training.state import encode, read_state

SCRIPT = Path(__file__).with_name("resumable.py")
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(trainer.model.parameters())


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << at % 8
    path.write_bytes(content)


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """In names, shapes, JSON and numbers; the run goes on from the state before, bit for bit."""
    expected = weights(run(None)[0])
    run(tmp_path, epochs=2)
    newest, size = (tmp_path / STATE).read_bytes(), (tmp_path / STATE).stat().st_size
    before = read_state(tmp_path / BEFORE).record["step"]
    head = int.from_bytes(newest[:8], "little")
    random = Random(0)
    places = [random.randrange(8, 8 + head) for _ in range(60)]
    places += [random.randrange(8 + head, size) for _ in range(60)]
    padding = len(newest[: 8 + head].rstrip(b" "))
    for at in places:
        flip(tmp_path / STATE, at)
        if at < padding:  # spaces at the header's end hold nothing
            with pytest.raises(InputError, match="is damaged"):
                read_state(tmp_path / STATE)
        (tmp_path / STATE).write_bytes(newest)
    assert 0 < before <= read_state(tmp_path / STATE).record["step"] == 2 * STEPS
    flip(tmp_path / STATE, size - 1)
    with pytest.warns(UserWarning, match=f"is damaged or missing; .* from step {before}"):
        resumed, _ = run(tmp_path)
    assert torch.equal(weights(resumed), expected)
    assert (tmp_path / DAMAGED).read_bytes() != newest
    assert {read_state(tmp_path / name).record["step"] for name in (STATE, BEFORE)} == {24}


def test_a_missing_state_and_two_damaged_ones(tmp_path: Path) -> None:
    expected = weights(run(None)[0])
    run(tmp_path, epochs=2)
    (tmp_path / STATE).unlink()
    with pytest.warns(UserWarning, match="damaged or missing"):
        assert torch.equal(weights(run(tmp_path)[0]), expected)
    for name in (STATE, BEFORE):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="both damaged"):
        run(tmp_path)
    assert (tmp_path / STATE).exists() and (tmp_path / BEFORE).exists()


def test_a_refused_newest_state_is_not_passed_over(tmp_path: Path) -> None:
    run(tmp_path, epochs=2)
    files = {name: (tmp_path / name).read_bytes() for name in (STATE, BEFORE)}
    with warnings.catch_warnings(), pytest.raises(InputError, match="seed = 0, not 1"):
        warnings.filterwarnings("error", message=".*is damaged")
        run(tmp_path, seed=1)
    assert files == {name: (tmp_path / name).read_bytes() for name in files}


def forge(path: Path, change, signed: bool) -> None:
    """Write a state again with other tensors or metadata, as of now or without a checksum."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = json.loads(file.metadata()["fastinterp"])
    if not signed:
        metadata["format"] = 1
    metadata = change(tensors, metadata) or metadata
    if signed:
        path.write_bytes(encode(tensors, metadata))
    else:
        save_file(tensors, path, {"fastinterp": json.dumps(metadata)})


def of_record(**changes):
    return lambda tensors, about: about["record"].update(changes)


def of_tensors(**changes):
    return lambda tensors, about: tensors.update(
        {k.replace("__", "/"): v for k, v in changes.items()}
    )


def without(name: str):
    return lambda tensors, about: tensors.pop(name).data_ptr() and None


def of_group(**changes):
    return lambda tensors, about: about["optimizer"]["param_groups"][0].update(changes)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, about: [1],
        lambda tensors, about: {"format": 1},
        lambda tensors, about: about.update(format=3),
        lambda tensors, about: about.update(record=[]),
        lambda tensors, about: about["record"].pop("history") and None,
        lambda tensors, about: about["record"].pop("seconds") and None,
        of_record(step="many"),
        of_record(step=True),
        of_record(step=-5),
        of_record(step=10**9),
        of_record(step=1e9),
        of_record(step=1),
        of_record(first_step=2),
        of_record(first_step=-1),
        of_record(images=17),
        of_record(seconds=float("nan")),
        of_record(history=[3]),
        of_record(history=[{"loss": "low"}]),
        of_record(settings=None),
        lambda tensors, about: about.update(optimizer=3),
        lambda tensors, about: about["optimizer"].update(param_groups=[]),
        lambda tensors, about: about["optimizer"]["param_groups"][0].pop("lr") and None,
        of_group(lr="small"),
        of_group(betas=[0.9]),
        of_group(betas=None),
        of_tensors(optimizer__99__step=torch.zeros(())),
        of_tensors(optimizer__x=torch.zeros(())),
        of_tensors(optimizer__0__exp_avg=torch.zeros(3)),
        of_tensors(optimizer__0__step=torch.zeros(3)),
        of_tensors(model__other=torch.zeros(())),
        of_tensors(model__classifier__weight=torch.zeros(4, 6)),
        lambda tensors, about: tensors.update({"model/classifier.weight": torch.zeros(4, 5)}),
        lambda tensors, about: tensors.update(
            {"model/classifier.weight": torch.zeros(4, 6, dtype=torch.float64)}
        ),
        without("optimizer/0/exp_avg"),
        without("model/classifier.weight"),
        without("totals"),
        without("random/cpu"),
        of_tensors(totals=torch.zeros(2)),
        of_tensors(totals=torch.zeros(3, dtype=torch.int64)),
        of_tensors(random__cpu=torch.zeros(3)),
    ],
)
def test_forged_states_are_refused_in_a_sentence(
    tmp_path: Path, make_tiny, make_data, change, signed: bool
) -> None:
    fit = {"out": tmp_path, "batch_size": 8, "progress": False}
    NormalTrainer(make_tiny()).fit(make_data(16), 1, **fit)
    forge(tmp_path / STATE, change, signed)
    content = (tmp_path / STATE).read_bytes()
    trainer = NormalTrainer(make_tiny())
    with pytest.raises(InputError, match=r"^[^\n]+\.$"):
        trainer.fit(make_data(16), 2, resume=True, **fit)
    assert (tmp_path / STATE).read_bytes() == content
    assert trainer.step == 0


def test_a_state_of_format_1_goes_on(tmp_path: Path) -> None:
    expected = weights(run(None)[0])
    run(tmp_path, epochs=2)
    forge(tmp_path / STATE, lambda tensors, about: None, signed=False)
    (tmp_path / BEFORE).unlink()
    assert torch.equal(weights(run(tmp_path)[0]), expected)


def test_a_state_beyond_the_epochs_asked_for_is_refused(tmp_path: Path, watch_stop) -> None:
    watch_stop(STEPS + 2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    with pytest.raises(InputError, match=r"at step 9, after 1 finished .* of 1 asked for"):
        run(tmp_path, epochs=1)


@pytest.fixture
def watch_stop(monkeypatch):
    """Press Ctrl-C in a step."""

    def stop(at: int) -> None:
        original = Trainer.training_step

        def step(self: Trainer, x: torch.Tensor, y: torch.Tensor) -> object:
            if self.step == at:
                signal.raise_signal(signal.SIGINT)
            return original(self, x, y)

        monkeypatch.setattr(Trainer, "training_step", step)

    return stop


@pytest.mark.parametrize("name", ["state", "history", "model"])
def test_a_full_disk(tmp_path: Path, monkeypatch, name: str) -> None:
    """One sentence, nothing half written, and the run goes on from the last state."""
    run(tmp_path, epochs=1)
    saved = (tmp_path / STATE).read_bytes()
    writers = "write_bytes", "write_text"
    for writer in writers:
        original = getattr(Path, writer)

        def full(self: Path, *args: object, write=original, **kwargs: object) -> int:
            if self.name.startswith(f".{name}."):
                write(self, args[0][:10], **kwargs)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(self, *args, **kwargs)

        monkeypatch.setattr(Path, writer, full)
    with pytest.raises(
        WriteError, match=r"No space left on device; [^\n]*resume the run"
    ) as caught:
        run(tmp_path)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert ((tmp_path / STATE).read_bytes() == saved) == (name == "state")
    assert not list(tmp_path.glob(".*tmp*"))
    monkeypatch.undo()
    assert torch.equal(weights(run(tmp_path)[0]), weights(run(None)[0]))


def test_a_full_disk_at_the_shell(tmp_path: Path, monkeypatch, capsys) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fastinterp.training.run.save_state", full)
    argv = ["train", "digits-small-normal", "--out", str(tmp_path), "--set", "epochs=1"]
    assert main(argv) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(error) == 1 and "No space left on device" in error[0]


def test_one_run_at_a_time(tmp_path: Path, make_tiny, make_data) -> None:
    with run_folder(tmp_path, resume=False):
        for resume in (False, True):
            with pytest.raises(InputError, match="Another run is training in"):
                run(tmp_path, resume=resume, epochs=1)
        threads_error = []

        def in_thread() -> None:
            try:
                run(tmp_path, epochs=1)
            except InputError as error:
                threads_error.append(error)

        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
        assert len(threads_error) == 1
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    run(tmp_path, epochs=1)


def test_a_killed_run_holds_no_lock_even_if_a_child_outlives_it(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from fastinterp.training.folder import run_folder\n"
        "with run_folder(sys.argv[1], True):\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        time.sleep(0.2)\n"
        "        print(child, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(process.stdout.readline())
    try:
        with pytest.raises(InputError, match="Another run"), run_folder(tmp_path, resume=True):
            pass
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives
        with run_folder(tmp_path, resume=True):
            pass
    finally:
        process.kill()
        os.kill(child, signal.SIGKILL)
        process.stdout.close()
        process.wait()


def test_files_that_killed_runs_left_are_removed(tmp_path: Path) -> None:
    left = [
        ".state.123.tmp.safetensors", ".state-before.9.tmp.safetensors", ".history.123.tmp.json",
        ".best.77.tmp.safetensors", ".model.77.tmp.safetensors", ".tmpa1B2c3",
    ]  # fmt: skip
    others = [
        ".tmp", ".tmp-mine", ".notes.123.tmp.txt", "tmpa1B2c3", ".state.tmp.safetensors",
        ".mine.123.tmp.safetensors",
    ]  # fmt: skip
    for name in (*left, *others):
        (tmp_path / name).touch()
    (tmp_path / ".tmpabcdef").mkdir()
    with run_folder(tmp_path, resume=True):
        (tmp_path / left[0]).touch()
        with pytest.raises(InputError, match="Another run"):
            run(tmp_path)
        assert (tmp_path / left[0]).exists(), "it is of a run at work"
    run(tmp_path, epochs=1)
    names = {path.name for path in tmp_path.iterdir()}
    assert not names & set(left)
    assert {*others, ".tmpabcdef"} <= names


def test_two_states_are_kept(tmp_path: Path) -> None:
    run(tmp_path)
    steps = [read_state(tmp_path / name).record["step"] for name in (BEFORE, STATE)]
    assert steps[1] == EPOCHS * STEPS and steps[0] in (steps[1] - 1, steps[1])


def test_a_disk_without_links(tmp_path: Path, monkeypatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    run(tmp_path)
    assert (tmp_path / BEFORE).stat().st_nlink == 1
    assert read_state(tmp_path / BEFORE).record["first_step"] == 0
