"""What may run between the steps and epochs of `Trainer.fit`: stopping early, writing logs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._utils.errors import InputError
from .._utils.require import require_count, require_nonnegative
from .result import StepResult

if TYPE_CHECKING:
    from .step import Stepper

Row = Mapping[str, Any]


class Callback:
    """Functions that `fit` calls; override those that you need.

    Of several processes the first one alone calls them.
    """

    def on_start(self, trainer: Stepper, history: Sequence[Row]) -> bool | None:
        """Before the first step; `history` has the rows of the run that is resumed. True stops."""
        return None

    def on_step(self, trainer: Stepper, result: StepResult) -> None:
        """After a step. Reading a tensor of the result waits for a GPU."""

    def on_epoch(self, trainer: Stepper, row: Row) -> bool | None:
        """After an epoch and its validation, with its row of the history. True ends the run."""
        return None

    def on_end(self, trainer: Stepper, history: Sequence[Row]) -> None:
        """After the last epoch, when everything is written."""


class EarlyStopping(Callback):
    """Ends a run that has not become better for some epochs.

    Args:
        patience: so many epochs.
        metric: what should rise, an entry of the history's rows. By default
            "val_robust_accuracy", else "val_accuracy", else "robust_accuracy".
        least: by how much it must rise to count.
    """

    def __init__(self, patience: int, metric: str | None = None, least: float = 0.0) -> None:
        self.patience = require_count("EarlyStopping: patience", patience)
        self.metric = metric
        self.least = require_nonnegative("EarlyStopping: least", least)
        self.best, self.waited = -math.inf, 0

    def on_start(self, trainer: Stepper, history: Sequence[Row]) -> bool:
        self.best, self.waited = -math.inf, 0
        return any([self.on_epoch(trainer, row) for row in history])  # noqa: C419 (all of them)

    def on_epoch(self, trainer: Stepper, row: Row) -> bool:
        usual = ("val_robust_accuracy", "val_accuracy", "robust_accuracy")
        names = usual if self.metric is None else (self.metric,)
        score = next((row[name] for name in names if row.get(name) is not None), None)
        if score is None:
            raise InputError(
                f"EarlyStopping: a row has no {names[0]}, only {', '.join(row)}; choose a metric "
                "of these or give val_data."
            )
        better = score > self.best + self.least
        self.best = score if better else self.best
        self.waited = 0 if better else self.waited + 1
        return self.waited >= self.patience


class TensorBoard(Callback):
    """Writes each epoch's row for TensorBoard, by torch.utils.tensorboard.

    Args:
        folder: of the logs; `tensorboard --logdir FOLDER` shows them.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                'log="tensorboard" needs the package tensorboard; install it with '
                "pip install fastinterp[tensorboard]."
            ) from error
        self.folder, self._make = folder, SummaryWriter
        self._writer: Any = None

    def on_start(self, trainer: Stepper, history: Sequence[Row]) -> None:
        after = history[-1]["step"] + 1 if history else 0  # what a stopped run wrote beyond
        self._writer = self._make(str(self.folder), purge_step=after)

    def on_epoch(self, trainer: Stepper, row: Row) -> None:
        for name, value in row.items():
            if value is not None and name not in ("epoch", "step"):
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def on_end(self, trainer: Stepper, history: Sequence[Row]) -> None:
        self._writer.close()


def checked_callbacks(
    callbacks: Sequence[Callback], log: str | None, out: str | Path | None
) -> list[Callback]:
    """The callbacks of a run, with that of `log`.

    Raises:
        InputError: one is no callback, or there is no such log.
    """
    for one in callbacks:
        if not isinstance(one, Callback):
            made = isinstance(one, type) and issubclass(one, Callback)
            got = f"the class; write {one.__name__}(...)" if made else f"{one!r}"
            raise InputError(
                f"callbacks must hold fastinterp.training.Callback objects, got {got}."
            )
    if log is None:
        return list(callbacks)
    if log != "tensorboard" or out is None:
        raise InputError(f'log must be "tensorboard", with an out folder, or None, got {log!r}.')
    return [*callbacks, TensorBoard(Path(out) / "tensorboard")]
