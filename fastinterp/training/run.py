"""A run over epochs: batches, checkpoints, progress, and continuing after a stop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import models
from .._utils import processes
from .._utils.errors import InputError, WriteError
from .._utils.files import write_json
from .._utils.require import require_count
from ..attacks.modes import in_mode
from ..data import MixedData
from ..models.gap import GapClassifier, require_fit
from .augment import Augment, Augmentation
from .batches import Batches, LoaderBatches, Source, make_batches
from .callbacks import Callback
from .distributed import require_same, share_of, share_out
from .folder import AVERAGE, BEFORE, BEST, DAMAGED, HISTORY, NETWORK, STATE, run_folder, writing
from .interrupt import deferred_interrupt
from .progress import Bar, Every, Totals, require_finite
from .schedule import warn_if_eps_stays_low
from .scheduler import as_json, from_json
from .state import State, read_newest, restore_state, save_state
from .step import Stepper
from .validation import Attack, Validation, is_best


class Run:
    """One call of `Trainer.fit`; see there.

    Args:
        stepper: takes the steps.
        settings: what a resumed run must share with the run that it continues.
    """

    def __init__(
        self,
        stepper: Stepper,
        settings: dict[str, Any],
        train_data: Source,
        epochs: int,
        batch_size: int,
        val_data: Source | None,
        val_attack: Attack | None,
        steps_per_epoch: int | None = None,
        augment: Augment | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.stepper = stepper
        # The first process decides, and the others do the same.
        self.callbacks = callbacks if processes.rank() == 0 else ()
        self.robust = stepper.method.inner is not None
        self.epochs = require_count("epochs", epochs)
        change = None if augment is None else Augmentation(augment, stepper.config.seed)
        self.batches = _batches(
            stepper, train_data, batch_size, "train_data", steps_per_epoch, change
        )
        self.val: Validation | None = None
        if val_data is not None:
            batches = _batches(stepper, val_data, max(batch_size, 256), "val_data")
            self.val = Validation(stepper.model, batches, val_attack)
        elif val_attack is not None:
            raise InputError("val_attack needs val_data, the images that it attacks.")
        self.totals = Totals(stepper.device)
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0  # of the current epoch, with those before a stop
        self.settings = settings | {
            "batch_size": self.batches.batch_size,
            "images": self.batches.images,
        }
        if steps_per_epoch is not None:  # as runs of before do not record what they did not have
            self.settings["steps_per_epoch"] = self.batches.steps
        if change is not None:
            self.settings["augment"] = change.name
        if isinstance(train_data, MixedData):
            self.settings |= {"extra_images": len(train_data.extra), "share": train_data.share}
        if isinstance(stepper.config.scheduler, str):
            total = stepper.step + self.epochs * self.batches.steps
            stepper.total_steps = self.settings["total_steps"] = total
        self.batches = share_out(self.batches, stepper.config.seed)
        # Not 0 in a second call of fit, whose epochs have an order of their own.
        self.first_step, self.first_epoch = stepper.step, stepper.epoch
        config = stepper.config
        if self.robust and isinstance(config.eps_schedule, tuple):
            last = stepper.step + self.epochs * self.batches.steps - 1
            warn_if_eps_stays_low(config.eps, config.eps_schedule[1], last, config.eps_at(last))

    def go(
        self,
        out: str | Path | None,
        resume: bool,
        progress: bool,
        checkpoint_seconds: float,
        info: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """Train, and return the history. Of several processes the first one writes."""
        resume = resume or processes.restarted()
        run = {"epochs": self.epochs, "steps an epoch": self.batches.steps, "out": str(out)}
        try:
            require_same(self.settings | run, self.stepper.model)
            with ExitStack() as stack:
                opened = partial(stack.enter_context, run_folder(out, resume))
                folder = processes.only_first(opened)
                if out is not None:
                    self._restore(processes.from_first(partial(_newest, folder)), folder)
                self._train(folder, progress, checkpoint_seconds, info)
        except (InputError, WriteError, KeyboardInterrupt) as error:
            processes.tell_why(str(error) or "it was stopped by Ctrl-C")
            raise
        return self.history

    def _train(
        self, folder: Path | None, progress: bool, checkpoint_seconds: float, info: dict[str, Any]
    ) -> None:
        name, per_epoch = self.stepper.method.name, self.batches.images_per_epoch
        progress = progress and processes.rank() == 0
        total = None if per_epoch is None else per_epoch * self.epochs
        done = 0 if per_epoch is None else per_epoch * self._done() // self.batches.steps
        with (
            in_mode(self.stepper.model, training=True),
            deferred_interrupt() as interrupted,
            Bar(progress, total, done, name, self.robust) as bar,
        ):
            every = Every(checkpoint_seconds)
            if self._stopped([c.on_start(self.stepper, self.history) for c in self.callbacks]):
                self.epochs = len(self.history)
            for epoch in range(len(self.history), self.epochs):
                for _ in self._steps(epoch, bar):
                    if interrupted():
                        self._save(folder)
                        raise KeyboardInterrupt
                    if every.due():
                        self._save(folder)
                self._finish_epoch(epoch)
                if folder is not None and is_best(self.history, self.robust):
                    # Before the state, which must not know of an epoch whose network is missing.
                    with self._averaged():
                        self._save_network(folder / BEST, info)
                self._save(folder)
                row = self.history[-1]
                bar.end_epoch(row, self.epochs)
                if self._stopped([c.on_epoch(self.stepper, row) for c in self.callbacks]):
                    break
        processes.only_first(partial(self._finish, folder, info))

    def _stopped(self, asked: Sequence[bool | None]) -> bool:
        """Whether a callback wants the run to end; all processes hear of it."""
        return processes.from_first(lambda: any(asked))

    def _finish(self, folder: Path | None, info: dict[str, Any]) -> None:
        if folder is not None:
            self._save_network(folder / NETWORK, info)
            if self.stepper.average is not None:
                with self._averaged():
                    self._save_network(folder / AVERAGE, info)
        for callback in self.callbacks:
            callback.on_end(self.stepper, self.history)

    def _averaged(self) -> AbstractContextManager[None]:
        """The trained network with the moving average of its weights, if there is one."""
        average = self.stepper.average
        return nullcontext() if average is None else average.in_place()

    def _done(self) -> int:
        """Steps of this run done so far."""
        return self.stepper.step - self.first_step

    def _steps(self, epoch: int, bar: Bar) -> Iterator[None]:
        """Do what is left of an epoch; yield after each step."""
        began, before = time.monotonic(), self.seconds
        known = share_of(self.batches)
        share = () if known is None else (known,)
        start = self._done() - epoch * self.batches.steps
        for x, y in self.batches.epoch(self.first_epoch + epoch, start):
            result = self.stepper.training_step(x, y, *share)
            self.totals.add(result)
            for callback in self.callbacks:
                callback.on_step(self.stepper, result)
            self.seconds = before + time.monotonic() - began
            means = bar.update(result.images, epoch, self.totals)
            if means is not None:
                require_finite(means["loss"], self.stepper.step)
            yield
        self.totals.means()  # waits for the device, so that the time includes its work
        self.seconds = before + time.monotonic() - began

    def _finish_epoch(self, epoch: int) -> None:
        means: dict[str, Any] = dict(self.totals.means())
        require_finite(means["loss"], self.stepper.step)
        if not self.robust:
            means["robust_accuracy"] = None
        row = {
            "epoch": epoch + 1,
            "step": self.stepper.step,
            "eps": self.stepper.current_eps() if self.robust else 0.0,
            "lr": float(self.stepper.optimizer.param_groups[0]["lr"]),
            **means,
        }
        if self.val is not None:
            with self._averaged():
                row |= self.val.measure()
        self.stepper.end_epoch(means["loss"])
        self.history.append(row | {"images": self.totals.images, "seconds": self.seconds})
        self.totals = Totals(self.stepper.device)
        self.seconds = 0.0
        self.stepper.epoch += 1

    def _save(self, folder: Path | None) -> None:
        if folder is None:
            return
        stepper = self.stepper
        require_finite(self.totals.means()["loss"], stepper.step)
        finite = [p.detach().isfinite().all() for p in stepper.model.parameters()]
        if not bool(torch.stack(finite).all()):
            require_finite(float("nan"), stepper.step)
        record = {
            "step": stepper.step,
            "first_step": self.first_step,
            "first_epoch": self.first_epoch,
            "images": self.totals.images,
            "seconds": self.seconds,
            "history": self.history,
            "settings": self.settings,
        }
        if stepper.scheduler is not None:
            record["scheduler"] = as_json(stepper.scheduler.state_dict())
        model, optimizer = stepper.model, stepper.optimizer
        with writing(folder):
            sums = self.totals.sums
            save_state(folder / STATE, model, optimizer, sums, record, self._averages())
            if self.history:
                write_json(folder / HISTORY, self.history)

    def _restore(self, state: State | None, folder: Path | None) -> None:
        """Continue the run of a state, if there is one."""
        if state is None:
            return
        record = state.record
        _require_same_settings(state.path.parent, record["settings"], self.settings)
        self._require_fitting_step(state)
        stepper = self.stepper
        sums = restore_state(state, stepper.model, stepper.optimizer, self._averages())
        if stepper.scheduler is not None:
            stepper.scheduler.load_state_dict(from_json(record["scheduler"]))
        self.totals.sums, self.totals.images = sums, record["images"]
        self.stepper.step, self.first_step = record["step"], record["first_step"]
        self.seconds, self.history = record["seconds"], record["history"]
        self.first_epoch = record.get("first_epoch", 0)  # old runs do not record it
        self.stepper.epoch = self.first_epoch + len(self.history)
        if state.path.name == BEFORE and folder is not None:
            with writing(folder):
                if (folder / STATE).exists():
                    (folder / STATE).replace(folder / DAMAGED)
                state.path.replace(folder / STATE)

    def _averages(self) -> nn.Module | None:
        average = self.stepper.average
        return None if average is None else average.averaged

    def _require_fitting_step(self, state: State) -> None:
        """Raise unless the state is of the asked epochs, and its step of its epoch."""
        path, record = state.path, state.record
        epochs, steps = len(record["history"]), self.batches.steps
        done = record["step"] - record["first_step"]
        if epochs > self.epochs:
            raise InputError(
                f"{path.parent} holds {epochs} finished epochs, more than the {self.epochs} asked "
                "for; ask for at least as many or choose another folder."
            )
        if not epochs * steps <= done <= min(epochs + 1, self.epochs) * steps:
            raise InputError(
                f"{path} is at step {done}, after {epochs} finished epochs of {steps} steps, of "
                f"{self.epochs} asked for; resume with the same data and as many epochs, or choose "
                "another folder."
            )
        most = self.batches.images_per_epoch
        if most is not None and record["images"] > most:
            raise InputError(
                f"{path} counts {record['images']} images in an epoch of "
                f"{most}; resume with the same data, or choose another "
                "folder."
            )

    def _save_network(self, path: Path, info: dict[str, Any]) -> None:
        last = {k: v for k, v in self.history[-1].items() if k != "seconds"}
        about = {"settings": self.settings, "epochs": self.epochs, "last_epoch": last}
        with writing(path.parent):
            models.save(self.stepper.model, path, info=info | about)


def _newest(folder: Path | None) -> State | None:
    return None if folder is None else read_newest(folder)


def _batches(
    stepper: Stepper,
    data: Source,
    batch_size: int,
    name: str,
    steps: int | None = None,
    augment: Augmentation | None = None,
) -> Batches:
    """The data as batches, once it is clear that the network takes them."""
    model, seed = stepper.model, stepper.config.seed
    classes = model.num_classes if isinstance(model, GapClassifier) else stepper.count_classes
    batches = make_batches(data, batch_size, seed, classes, stepper.device, name, steps, augment)
    # Bad val_data would end the run after an epoch. A DataLoader of training data may be slow to
    # start, and the first step checks its first batch.
    if name == "val_data" or not isinstance(batches, LoaderBatches):
        require_fit(name, stepper.model, batches.first_images().to(stepper.device))
    return batches


def _require_same_settings(out: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    added = {"precision": "float32", "norm": "linf"}  # settings that old runs did not record
    old = {name: value for name, value in added.items() if name in new} | old
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise InputError(
                f"{out} holds a run with {name} = {old.get(name)!r}, not {new.get(name)!r}; "
                "resume with the same settings or choose another folder."
            )
