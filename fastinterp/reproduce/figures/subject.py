"""The image of figures 1 and 2: one that an attack moves from its class to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._utils.errors import InputError
from ...attacks import PGD
from ...evaluation.measuring import predict
from ...models.gap import GapClassifier
from ..networks import Network, network_name
from .figure import Setting

STEPS = 10
ROLES = ("true", "target")


class Scene(NamedTuple):
    """A network, the class of the image, the class that the attack steers to, and its radius."""

    network: Network
    true: str
    target: str
    eps: float

    @property
    def step_size(self) -> float:
        """Half the radius; at the paper's 0.02 these are the 0.01 of its tables."""
        return self.eps / 2


# The paper's first; it calls the primate a monkey.
SCENES = (
    Scene(Network("restricted_imagenet", "wresnet", "normal"), "primate", "fish", 0.02),
    Scene(Network("cifar10", "small", "normal"), "horse", "ship", 8 / 255),
    Scene(Network("mnist", "small", "normal"), "3", "8", 0.2),
    Scene(Network("digits", "small", "normal"), "3", "8", 0.2),
)
NEEDS = (
    "the restricted_imagenet wresnet normal network; with --only cifar10, mnist or digits that "
    "data set's small normal one"
)


@dataclass(frozen=True)
class Subject:
    """An image that the network gets right, and the same one after the attack.

    Attributes:
        scene: what was looked for.
        model: the network, in eval mode.
        x, x_adv: [1, C_in, H, W], on the model's device.
        label, target: t and t', [1].
        about: what the rows of a figure say of it.
    """

    scene: Scene
    model: GapClassifier
    x: Tensor
    x_adv: Tensor
    label: Tensor
    target: Tensor
    about: dict[str, Any]

    @property
    def classes(self) -> list[int]:
        """t and t'."""
        return [int(self.label), int(self.target)]

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Images [N, C_in, H, W] -> the probabilities of t and t', [N, 2], on the CPU."""
        probabilities: Tensor = self.model(images).softmax(dim=1)[:, self.classes]
        return probabilities.cpu()


def find_subject(setting: Setting, network: Network) -> Subject:
    """The first image of its class, in official order, that is classified rightly and then fooled.

    The attack is `STEPS` steps of targeted PGD from x, cross-entropy, the last iterate judged.

    Args:
        setting: where the network and the images are.
        network: of one of `SCENES`.

    Raises:
        InputError: the network or the images are not there, or no image will do.
    """
    scene = next(scene for scene in SCENES if scene.network == network)
    path = setting.find(network)
    model = setting.load(network)
    data = setting.images(network.dataset)
    label, target = (
        torch.tensor([data.classes.index(name)], device=setting.device)
        for name in (scene.true, scene.target)
    )
    attack = PGD(model, scene.eps, scene.step_size, STEPS, targeted=True)
    for index in (data.labels == label).nonzero().squeeze(1).tolist():
        x = data.float([index])
        if predict(model, x) == label:
            x_adv = attack(x, target)
            if predict(model, x_adv) == target:
                about = {
                    "dataset": network.dataset,
                    "model": network.model,
                    "method": network.method,
                    "network": None if path is None else network_name(path),
                    "image": index,
                    "true": scene.true,
                    "target": scene.target,
                }
                return Subject(scene, model, x, x_adv, label, target, about)
    raise InputError(
        f"{network} classifies no {scene.true} rightly that {STEPS} steps of PGD with eps "
        f"{scene.eps:.3g} turn into a {scene.target}; the figure shows one."
    )


def holds(setting: Setting, network: Network, count: int) -> bool:
    """Whether an earlier run has left all `count` rows, and there is nothing to check them by."""
    rows = setting.known.rows
    wanted = all((row["dataset"], row["model"]) == network[:2] for row in rows)
    return setting.networks is None and wanted and len(rows) == count


def shares(rows: Sequence[Mapping[str, Any]], key: str = "probability") -> str:
    """The rows of t and t' -> their probabilities, in words."""
    return ", ".join(f"{row[row['class']]}: {row[key]:.2f}" for row in rows)
