"""Write an objective of your own, climb it, and train with it.

python examples/own_objective.py
"""

import torch
from torch import Tensor

from fastinterp import PGD, data, models
from fastinterp.attacks import CrossEntropy, Objective, Outputs
from fastinterp.training import Method, Trainer


class FeatureDistance(Objective):
    """Squared l2 distance between the feature maps of x and x', one number an image."""

    flat_at_x = True  # value and gradient are zero at x' = x, so attacks start at a random point

    def prepare(self, clean: Outputs, labels: Tensor):
        features = clean.features  # computed once

        def value(adv: Outputs) -> Tensor:
            return (adv.features - features).square().flatten(1).sum(dim=1)

        return value


train, test = data.load("digits", split="train"), data.load("digits", split="test")
model = models.small(seed=0)
distance = FeatureDistance()
method = Method(
    name="feature-distance",
    gamma=0.01,
    inner=distance,  # x' maximises this
    on_clean=CrossEntropy(),  # the loss at x
    on_adv=0.01 * distance,  # plus this at x'
)
trainer = Trainer(model, method, eps=0.1, steps=5, step_size=0.03, lr=1e-3)
trainer.fit(train, epochs=2, progress=False)

x, y = test.float()[:50], test.labels[:50]
attack = PGD(model, eps=0.1, step_size=0.025, steps=10, objective=distance, random_start=True)
x_adv = attack(x, y)
with torch.no_grad():
    moved = (model.features(x_adv) - model.features(x)).square().flatten(1).sum(dim=1)
print(f"mean distance of the features under attack: {moved.mean():.3f}")
