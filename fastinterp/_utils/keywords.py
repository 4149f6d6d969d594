"""Hints for wrong keywords: what other libraries call a setting of ours."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

from .errors import InputError
from .require import suggest

Class = TypeVar("Class", bound=type)

# Our name: the names that torchattacks, foolbox, ART, captum, AutoAttack, TRADES and others use.
OTHER_NAMES = {
    "model": "net network classifier predict estimator forward_func",
    "eps": "epsilon epsilons eps_max radius max_norm",
    "step_size": "alpha eps_iter eps_step stepsize abs_stepsize",
    "steps": "iters iterations num_steps n_steps nb_steps nb_iter n_iter num_iter max_iter "
    "perturb_steps n_iterations",
    "queries": "n_queries num_queries max_queries",
    "random_start": "rand_init random_init random_starts rs",
    "restarts": "n_restarts num_restarts num_random_init",
    "norm": "ord order p",
    "objective": "loss loss_fn loss_function criterion",
    "lower": "clip_min min_value",
    "upper": "clip_max max_value",
    "lr": "learning_rate",
    "lr_milestones": "milestones lr_schedule scheduler lr_scheduler",
    "gamma": "beta lam lambda_ weight reg",
    "optimizer": "optimiser opt",
    "precision": "amp dtype fp16 bf16",
    "batch_size": "batch bs train_batch_size",
}
OURS = {other: ours for ours, others in OTHER_NAMES.items() for other in others.split()}
OF_FIT = (
    "epochs", "batch_size", "val_data", "val_attack", "out", "resume", "progress",
    "steps_per_epoch", "augment",
)  # fmt: skip


def reject_unknown(who: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise for the first name in `given` that is not in `known`, and suggest one that is.

    Args:
        who: the subject of the error, such as "PGD" or "A recipe".

    Raises:
        InputError: a name is unknown.
    """
    for name in given:
        if name not in known:
            hint = suggest(name, known)
            if OURS.get(name) in known:
                hint = f"did you mean {OURS[name]!r}?"
            elif name in OF_FIT and who.endswith("Trainer"):
                hint = f"pass it to fit({name}=...)."
            raise InputError(f"{who} has no setting {name!r}; {hint}")


def hint_keywords(kind: Class) -> Class:
    """Class decorator: a wrong keyword at construction raises InputError with a hint.

    It reads the signature of the class's own `__init__`, which must not take `**kwargs`, and leaves
    `help` and type checks as they are.
    """
    made: Any = kind
    init = made.__init__
    known = list(signature(init).parameters)[1:]

    @wraps(init)
    def checked(self: object, *args: Any, **kwargs: Any) -> None:
        reject_unknown(type(self).__name__, kwargs, known)
        init(self, *args, **kwargs)

    made.__init__ = checked
    return kind
