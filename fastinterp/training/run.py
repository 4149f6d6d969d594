"""A run of a trainer over epochs: batches, checkpoints, progress, and going on after a stop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import models
from .._utils.errors import InputError
from .._utils.files import write_json
from .._utils.require import require_count
from ..attacks.modes import in_mode
from ..models.gap import require_fit
from .feed import Feed, LoaderFeed, Source, make_feed
from .interrupt import deferred_interrupt
from .progress import Bar, Every, Totals, require_finite
from .state import read_record, restore_state, save_state
from .validation import Attack, Validation, is_best

if TYPE_CHECKING:
    from .trainer import Trainer

STATE, NETWORK, BEST = "state.safetensors", "model.safetensors", "best.safetensors"
HISTORY = "history.json"


class Run:
    """One call of `Trainer.fit`; see there."""

    def __init__(
        self,
        trainer: Trainer,
        train_data: Source,
        epochs: int,
        batch_size: int,
        val_data: Source | None,
        progress: bool,
        info: dict[str, Any],
        val_attack: Attack | None = None,
    ) -> None:
        self.trainer = trainer
        self.epochs = require_count("epochs", epochs)
        self.feed = _feed(trainer, train_data, batch_size, "train_data")
        self.val: Validation | None = None
        if val_data is not None:
            feed = _feed(trainer, val_data, max(batch_size, 256), "val_data")
            self.val = Validation(trainer.model, feed, val_attack)
        elif val_attack is not None:
            raise InputError("val_attack needs val_data, the images that it is to attack.")
        self.progress = progress
        self.info = info
        self.totals = Totals(trainer.device)
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0  # of the current epoch, in earlier sittings too
        self.settings = trainer.settings | {
            "batch_size": getattr(self.feed, "batch_size", None),
            "images": self.feed.images,
        }
        self.first_step = trainer.step  # a second fit counts its own epochs and goes on stepping

    def go(self, out: Path | None, resume: bool, checkpoint_seconds: float) -> list[dict[str, Any]]:
        if out is not None and _holds_a_run(out, resume):
            self._restore(out / STATE)
        with (
            in_mode(self.trainer.model, training=True),
            deferred_interrupt() as interrupted,
            self._bar() as bar,
        ):
            every = Every(checkpoint_seconds)
            for epoch in range(len(self.history), self.epochs):
                for _ in self._steps(epoch, bar):
                    if interrupted():
                        self._save(out)
                        raise KeyboardInterrupt
                    if every.due():
                        self._save(out)
                self._finish_epoch(epoch)
                if out is not None and is_best(self.history, self.trainer.method.inner is not None):
                    self._save_network(out / BEST)  # first: a state that knows of it implies it
                self._save(out)
        if out is not None:
            self._save_network(out / NETWORK)
        return self.history

    def _done(self) -> int:
        """Steps of this run done so far."""
        return self.trainer.step - self.first_step

    def _steps(self, epoch: int, bar: Bar) -> Iterator[None]:
        """Do what is left of an epoch; yield after each step."""
        began = time.monotonic()
        before = self.seconds
        for x, y in self.feed.epoch(epoch, self._done() - epoch * self.feed.steps):
            result = self.trainer.training_step(x, y)
            self.totals.add(result)
            self.seconds = before + time.monotonic() - began
            means = bar.update(result.images, epoch, self.totals)
            if means is not None:
                require_finite(means["loss"], self.trainer.step)
            yield
        self.totals.means()  # waits for the device: the time is that of the work, not of its asking
        self.seconds = before + time.monotonic() - began

    def _finish_epoch(self, epoch: int) -> None:
        means: dict[str, Any] = dict(self.totals.means())
        require_finite(means["loss"], self.trainer.step)
        if self.trainer.method.inner is None:
            means["robust_accuracy"] = None
        row = {
            "epoch": epoch + 1,
            "step": self.trainer.step,
            "eps": 0.0 if self.trainer.method.inner is None else self.trainer.current_eps(),
            "lr": float(self.trainer.optimizer.param_groups[0]["lr"]),
            **means,
        }
        if self.val is not None:
            row |= self.val.measure()
        self.history.append(row | {"images": self.totals.images, "seconds": self.seconds})
        self.totals = Totals(self.trainer.device)
        self.seconds = 0.0

    def _save(self, out: Path | None) -> None:
        if out is None:
            return
        require_finite(self.totals.means()["loss"], self.trainer.step)
        parameters = self.trainer.model.parameters()
        if not bool(torch.stack([p.detach().isfinite().all() for p in parameters]).all()):
            require_finite(float("nan"), self.trainer.step)
        record = {
            "step": self.trainer.step,
            "first_step": self.first_step,
            "images": self.totals.images,
            "seconds": self.seconds,
            "history": self.history,
            "settings": self.settings,
        }
        save_state(
            out / STATE, self.trainer.model, self.trainer.optimizer, self.totals.sums, record
        )
        if self.history:
            write_json(out / HISTORY, self.history)

    def _restore(self, path: Path) -> None:
        record = read_record(path)
        _require_same_settings(path.parent, record["settings"], self.settings)
        if len(record["history"]) > self.epochs:
            raise InputError(
                f"{path.parent} holds {len(record['history'])} finished epochs, more than the "
                f"{self.epochs} asked for; ask for at least as many or choose another folder."
            )
        self.totals.sums = restore_state(path, self.trainer.model, self.trainer.optimizer)
        self.totals.images = record["images"]
        self.trainer.step, self.first_step = record["step"], record["first_step"]
        self.seconds, self.history = record["seconds"], record["history"]

    def _save_network(self, path: Path) -> None:
        model = self.trainer.model
        info = {**self.info, "settings": self.settings, "epochs": self.epochs}
        last = {k: v for k, v in self.history[-1].items() if k != "seconds"}
        if model.config is not None:
            models.save(model, path, info=info | {"last_epoch": last})

    @contextmanager
    def _bar(self) -> Iterator[Bar]:
        bar = Bar(
            self.progress,
            self.feed.images_per_epoch * self.epochs,
            self.feed.images_per_epoch * self._done() // self.feed.steps,
            self.trainer.method.name,
            self.trainer.method.inner is not None,
        )
        try:
            yield bar
        finally:
            bar.close()


def _feed(trainer: Trainer, data: Source, batch_size: int, name: str) -> Feed:
    """The data as batches, once it is seen that the network takes them."""
    classes = trainer.model.num_classes
    feed = make_feed(data, batch_size, trainer.seed, classes, trainer.device, name)
    # Now, as an epoch's work must not end at data that nobody can use. A DataLoader to train on
    # may be slow to start, and its first batch is looked at soon enough.
    if name == "val_data" or not isinstance(feed, LoaderFeed):
        require_fit(name, trainer.model, feed.look().to(trainer.device))
    return feed


def _holds_a_run(out: Path, resume: bool) -> bool:
    """Whether there is a state to go on from. Never lets a run write over another one's results."""
    file = next((path for path in (out, *out.parents) if path.exists() and not path.is_dir()), None)
    if file is not None:
        raise InputError(f"out must be a folder, and {file} is a file; choose another name.")
    try:  # now, as an epoch's work must not end at a folder that nobody can write into
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out}: {error.strerror}.") from error
    if not os.access(out, os.W_OK):
        raise InputError(f"cannot write into {out}; choose another folder.")
    state, network = (out / STATE).exists(), (out / NETWORK).exists()
    if resume and network and not state:
        raise InputError(
            f"{out} holds a trained network but no state to go on from; choose another folder."
        )
    if not resume and (state or network):
        raise InputError(
            f"{out} holds a run already; pass resume (--resume) to go on with it, "
            "or choose another folder."
        )
    return state


def _require_same_settings(out: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    first = {"precision": "float32", "norm": "linf"}  # of runs from before there was a choice
    old = {name: value for name, value in first.items() if name in new} | old
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise InputError(
                f"{out} holds a run with {name} = {old.get(name)!r}, not {new.get(name)!r}; "
                "resume with the same settings or choose another folder."
            )
