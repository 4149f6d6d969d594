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
from ..networks import Network, network_and_recipe
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
        """Half the radius: 0.01 for the paper's radius of 0.02, as in its tables."""
        return self.eps / 2


# The first is the paper's, which calls the primate a monkey.
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
    """An image that the network classifies correctly, before and after the attack.

    Attributes:
        scene: the network, classes and radius.
        model: the network, in eval mode.
        x, x_adv: [1, C_in, H, W], on the model's device.
        label, target: t and t', [1].
        about: the entries that all rows of a figure share.
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
    """The first image that is classified correctly and then turned into the target class.

    Images are tried in official order, with `STEPS` steps of targeted PGD from x on cross-entropy;
    its last iterate counts.

    Args:
        setting: where the network and the images are.
        network: of one of `SCENES`.

    Raises:
        InputError: the network or the images are missing, or there is no such image.
    """
    scene = next(scene for scene in SCENES if scene.network == network)
    model = setting.load(network)
    data = setting.images(network.dataset)
    label, target = (
        torch.tensor([data.classes.index(name)], device=setting.device)
        for name in (scene.true, scene.target)
    )
    attack = PGD(model, scene.eps, scene.step_size, STEPS, targeted=True)
    for index in (data.labels.to(label) == label).nonzero().squeeze(1).tolist():
        x = data.float([index]).to(setting.device)
        if predict(model, x) == label:
            x_adv = attack(x, target)
            if predict(model, x_adv) == target:
                about = {
                    "dataset": network.dataset,
                    "model": network.model,
                    "method": network.method,
                    "network": network_and_recipe(setting.find(network))["network"],
                    "image": index,
                    "true": scene.true,
                    "target": scene.target,
                }
                return Subject(scene, model, x, x_adv, label, target, about)
    raise InputError(
        f"There is no {scene.true} that {network} classifies correctly and {STEPS} steps of PGD "
        f"with eps {scene.eps:.3g} turn into a {scene.target}; take another network, or another "
        "data set with --only."
    )


def holds(setting: Setting, network: Network, count: int) -> bool:
    """Whether all `count` rows are known, and no folder of networks was given to check them."""
    rows = setting.known.rows
    wanted = all((row["dataset"], row["model"]) == network[:2] for row in rows)
    return setting.networks is None and wanted and len(rows) == count


def shares(rows: Sequence[Mapping[str, Any]], key: str = "probability") -> str:
    """The rows of t and t' -> their probabilities, in words."""
    return ", ".join(f"{row[row['class']]}: {row[key]:.2f}" for row in rows)
