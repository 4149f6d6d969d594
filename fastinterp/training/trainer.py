"""The trainer of every method: settings, steps, and whole runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn

from .._utils.described import describe
from .._utils.keywords import reject_unknown
from .augment import Augment
from .batches import Source
from .callbacks import Callback, checked_callbacks
from .config import TrainConfig
from .methods import Method
from .methods import method as method_named
from .run import Run
from .schedule import LinearEps
from .step import Stepper
from .validation import Attack

_RECORDED = ["weight_decay", "scheduler", "scheduler_every", "clip_grad", "label_smoothing"]
_RECORDED += ["ema", "awp", "sync_batchnorm", "outer_precision"]
OPTIONS = {field.name: field.default for field in fields(TrainConfig) if field.name in _RECORDED}


class Trainer(Stepper):
    """Trains a network by a method of the table (`fastinterp.training.METHODS`).

    `IntTrainer` and its siblings are this class with the method filled in. A method made by hand (a
    `Method` of any objectives) trains here too.

    Args:
        model: images in [0, 1] -> logits; it is trained in place. Methods that compare class
            activation maps need a GapClassifier.
        method: a `Method`, or the name of one, which then has its default gamma.
        config: the settings; None takes the defaults.
        settings: single settings by keyword, which replace those of `config`; see `TrainConfig`.

    Attributes:
        model, method, config, optimizer, step: see `Stepper`.

    Raises:
        InputError: a setting is unknown or out of its range, or the model cannot be trained.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method | str,
        config: TrainConfig | None = None,
        **settings: Any,
    ) -> None:
        made = self._config(**settings)
        if config is not None:
            made = replace(config, **settings)
        super().__init__(model, method_named(method) if isinstance(method, str) else method, made)

    @classmethod
    def _config(cls, **settings: Any) -> TrainConfig:
        known = [*signature(cls).parameters, *(field.name for field in fields(TrainConfig))]
        reject_unknown(cls.__name__, settings, [name for name in known if name != "settings"])
        return TrainConfig(**settings)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that a resumed run must share with the run that it continues, as JSON."""
        config = self.config
        settings: dict[str, Any] = {
            "method": self.method.name,
            "gamma": self.method.gamma,
            "seed": config.seed,
            "optimizer": type(self.optimizer).__name__,
            "lr": self._base_lr,
            "lr_milestones": list(config.lr_milestones),
            "precision": config.precision,
        }
        # Old runs do not record what they did not have.
        for name, usual in OPTIONS.items():
            value = getattr(config, name)
            if value != usual:
                settings[name] = getattr(value, "__qualname__", value)
        if self.method.inner is not None:
            schedule: Any = config.eps_schedule
            if isinstance(schedule, LinearEps):
                schedule = schedule.start, schedule.end
            elif callable(schedule):
                schedule = getattr(schedule, "__qualname__", repr(schedule))
            settings |= {
                "eps": config.eps,
                "steps": config.steps,
                "step_size": config.step_size,
                "norm": config.norm,
                "eps_schedule": list(schedule) if isinstance(schedule, tuple) else schedule,
                "random_start": config.random_start,
            }
        return settings | self.method.options

    def __repr__(self) -> str:
        return describe(self, {"model": self.model, **self.settings})

    def fit(
        self,
        train_data: Source,
        epochs: int,
        batch_size: int = 50,
        val_data: Source | None = None,
        out: str | Path | None = None,
        resume: bool = False,
        progress: bool = True,
        checkpoint_seconds: float = 60.0,
        info: dict[str, Any] | None = None,
        val_attack: Attack | None = None,
        steps_per_epoch: int | None = None,
        augment: Augment | None = None,
        callbacks: Sequence[Callback] = (),
        log: str | None = None,
    ) -> list[dict[str, Any]]:
        """Train for a number of epochs.

        With `out`, that folder gets `state.safetensors` (everything needed to resume; written after
        each epoch, every `checkpoint_seconds` within one, and on Ctrl-C), `history.json`, and at
        the end `model.safetensors`. With `val_attack`, or for a method without x' with `val_data`,
        `best.safetensors` is the network after the epoch that did best on those images, because
        robust accuracy often falls again late in training. With `ema` it is the average of the
        weights that is validated, and the last one is `ema.safetensors`. `models.load` builds these
        networks again; of one without a source, such as a wrapped network or your own, they hold
        the weights, for `models.load(path, into=network)`.

        A run stopped at any moment, even by SIGKILL, and resumed gives the weights that it would
        have given; on a CPU with the same number of threads, bit for bit. A state carries a
        checksum: a damaged one becomes `state-damaged.safetensors`, a warning says so, and the run
        continues from the one before it, `state-before.safetensors`. One run at a time trains in a
        folder; a lock on its file `.lock` ends with the process, however it ends.

        Args:
            train_data: an ImageData (`data.load`), a pair (images [N, ...] uint8 or float in
                [0, 1], labels [N]) or a MixedData (`data.mix`), which are moved to the model's
                device and shuffled there; an ImageStream (`data.stream`), whose files are read when
                they are needed; or a DataLoader, or another iterable, of such batches. The last,
                partial batch of each epoch is left out. A DataLoader determines its own batch size
                and order, so a resume within an epoch draws the rest of that epoch anew; where its
                sampler or data set has `set_epoch`, that is called.
            epochs: in total, including those of the run that is resumed. A second call of fit goes
                on with new orders of the images.
            batch_size: images in a step; all images if there are fewer.
            val_data: measured after each epoch, in eval mode.
            out: folder for the results; None writes nothing.
            resume: continue the run in `out`, or start one if there is none.
            progress: print a line for each epoch and, on a terminal, show a bar with loss, clean
                and robust accuracy, and images per second.
            checkpoint_seconds: at most this much work is lost to a kill.
            info: stored in `model.safetensors` beside the settings.
            val_attack: (x, y) -> x_adv, made with this trainer's model, such as `PGD(model, eps)`:
                val_data are measured under it too.
            steps_per_epoch: batches in an epoch; None takes all. A DataLoader without a length
                needs it: its next epoch goes on where the last one ended.
            augment: changes images of train_data that are in memory: "crop-flip" shifts each by up
                to an eighth of its size and mirrors half of them; or a function of a batch x
                [B, C, H, W] in [0, 1], such as a transform of torchvision. Both run on the model's
                device, and their random numbers depend on the trainer's seed and the epoch alone.
            callbacks: objects of `fastinterp.training.Callback`, such as `EarlyStopping(10)`.
            log: "tensorboard" writes each row into out/tensorboard.

        Returns:
            A row for each epoch: epoch, step, eps, lr, loss, clean_accuracy, robust_accuracy (on
            the x' of training; None for a method without), val_accuracy (with val_data),
            val_robust_accuracy (with val_attack), images, seconds.

        Raises:
            InputError: an argument is out of its range; the data do not fit (pixels of a DataLoader
                are checked in its first batch); `out` is a file, or holds a run and `resume` is
                False, or holds a run with other settings; another run is training in `out`; its
                last two states are damaged; the loss is no longer finite (the last good state is
                kept).
            WriteError: a file cannot be written, such as to a full disk (the last good state is
                kept).
        """
        run = Run(
            self,
            self.settings,
            train_data,
            epochs,
            batch_size,
            val_data,
            val_attack,
            steps_per_epoch,
            augment,
            checked_callbacks(callbacks, log, out),
        )
        return run.go(out, resume, progress, checkpoint_seconds, info or {})
