"""Attack a classifier: projected gradient descent in two norms, and the smallest radius that fools.

python examples/attack.py
"""

import torch

from fastinterp import PGD, data
from fastinterp.attacks import Margin, MinimalPGD
from fastinterp.training import load_recipe, run_recipe

recipe = load_recipe("digits-small-normal", {"epochs": 10})
model = run_recipe(recipe, progress=False).model
test = data.load("digits", split="test").subset(slice(0, 100))
x, y = test.float(), test.labels


def accuracy(images: torch.Tensor) -> float:
    with torch.no_grad():
        return float((model(images).argmax(dim=1) == y).float().mean())


print(f"clean images: {accuracy(x):.2f}")
attacks = {
    "linf, eps 0.1": PGD(model, eps=0.1, step_size=0.025, steps=10),
    "l2, eps 1": PGD(model, eps=1.0, norm="l2", steps=10),
    "linf, eps 0.1, margin, five random starts": PGD(
        model, eps=0.1, step_size=0.025, steps=10, objective=Margin(), random_start=True, restarts=5
    ),
}
for name, attack in attacks.items():
    print(f"{name}: {accuracy(attack(x, y)):.2f}")

found = MinimalPGD(model, steps=10)(x, y)
print(f"median radius that changes the prediction: {found.eps.median():.3f}")
