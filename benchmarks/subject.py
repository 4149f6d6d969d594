"""The network and the images that attacks are timed on."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from fastinterp import data, models
from fastinterp.evaluation import paper_selection
from fastinterp.models import GapClassifier
from fastinterp.training import NormalTrainer

NETWORKS = "FASTINTERP_BENCH_NETWORKS"
DATA_DIR = "FASTINTERP_BENCH_DATA_DIR"
RELEASED = "mnist_smallgap_int_100.pkl"


@dataclass(frozen=True)
class Subject:
    """A network in eval mode, 200 images [N, 1, 28, 28] and their labels [N]."""

    name: str
    model: GapClassifier
    images: Tensor
    labels: Tensor

    def to(self, device: str) -> Subject:
        model = copy.deepcopy(self.model).to(device)
        return Subject(self.name, model, self.images.to(device), self.labels.to(device))


@cache
def subject(device: str = "cpu") -> Subject:
    """The released Int network on MNIST where the options name its folders, else a network that is
    trained on digits in a few seconds, on a CPU in any case."""
    if device != "cpu":
        return subject("cpu").to(device)
    networks, root = os.environ.get(NETWORKS), os.environ.get(DATA_DIR)
    if networks and root:
        model = models.load(f"{networks}/{RELEASED}")
        test = data.load("mnist", root)
        chosen, _ = paper_selection(len(test))
        images, labels = test.float(chosen), test.labels[chosen]
        return Subject("MNIST Small, Int, as released", model.eval(), images, labels)
    untrained = digits_subject()
    model = untrained.model
    NormalTrainer(model, lr=1e-3).fit(data.load("digits", split="train"), 10, progress=False)
    return replace(untrained, name="Small, trained on digits for 10 epochs", model=model.eval())


def digits_subject() -> Subject:
    """A fresh network and digits: enough where weights do not matter."""
    test = data.load("digits", split="test")
    chosen = torch.arange(200)
    model = models.small(seed=0).eval()
    return Subject("Small, untrained", model, test.float(chosen), test.labels[chosen])
